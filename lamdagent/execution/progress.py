"""How far a job is: one value, and the function that is told of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    phase: str
    """`train`, `merge`, `evaluate bfcl`, ..."""
    done: int
    total: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The trainer's own figures at this step, such as loss."""


Report = Callable[[Progress], None]
"""Callback by which a job says how far it is; cheap, may be called every step."""
