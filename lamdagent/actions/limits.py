"""Limits of a hyperparameter's values besides their type: `loss: Annotated[str, one_of("sigmoid", "hinge")]`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args

Grid = Mapping[str, Sequence[Any]]
"""Every hyperparameter of an action type with its allowed values."""


class Limit(Protocol):
    """One condition; it stands in an `Annotated` type and is checked before a search begins."""

    def fault(self, value: Any, grid: Grid) -> str:
        """The fault of `value`, and what is allowed; empty when there is no fault."""
        ...

    def columns(self, value: Any) -> frozenset[str]:
        """The columns of the prompts that `value` reads."""
        ...


class _Plain:
    """A limit that reads no columns."""

    def columns(self, value: Any) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True)
class OneOf(_Plain):
    """A limited choice."""

    allowed: tuple[str, ...]

    def fault(self, value: Any, grid: Grid) -> str:
        """See `Limit`."""
        return "" if value in self.allowed else f"got {value!r}; allowed: {', '.join(self.allowed)}"


@dataclass(frozen=True)
class AtLeast(_Plain):
    """A smallest value."""

    least: float

    def fault(self, value: Any, grid: Grid) -> str:
        """See `Limit`."""
        return "" if value >= self.least else f"got {value}, wanted at least {self.least:g}"


@dataclass(frozen=True)
class Between(_Plain):
    """A range, its ends included."""

    low: float
    high: float

    def fault(self, value: Any, grid: Grid) -> str:
        """See `Limit`."""
        fits = self.low <= value <= self.high
        return "" if fits else f"got {value}, wanted {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Above(_Plain):
    """A value that is not reached itself."""

    low: float

    def fault(self, value: Any, grid: Grid) -> str:
        """See `Limit`."""
        return "" if value > self.low else f"got {value}, wanted more than {self.low:g}"


@dataclass(frozen=True)
class MultipleOf(_Plain):
    """A multiple of every value of another hyperparameter."""

    other: str

    def fault(self, value: Any, grid: Grid) -> str:
        """See `Limit`."""
        odd = [unit for unit in grid[self.other] if unit < 1 or value % unit or value < unit]
        return f"got {value}, wanted a multiple of {self.other} = {odd[0]}" if odd else ""


def one_of(*allowed: str) -> OneOf:
    """A limited choice."""
    return OneOf(allowed)


def limits_of(annotation: Any) -> tuple[Limit, ...]:
    """The limits in an `Annotated` type, whatever else stands there; none in a plain one."""
    return tuple(note for note in getattr(annotation, "__metadata__", ()) if hasattr(note, "fault"))


def plain_type(annotation: Any) -> Any:
    """The type without its limits."""
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
