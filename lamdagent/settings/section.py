"""Base of every group of settings, and the ranges that several keys share."""

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le


class Section:
    """A group of settings, each with its type, range and choices beside it. pydantic reads them (reading.py)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "coerce_numbers_to_str": True,
        "allow_inf_nan": False,
    }


AtLeast1 = Annotated[int, Ge(1)]
AtLeast0 = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Gt(0), Le(1)]
"""Share of the data, for example: more than nothing, at most all."""

Mode = Literal["refuse", "warn", "off"]
"""Reaction of a guard that finds something."""
Split = Literal["search", "test"]
"""The items that choose, and those that are looked at once, at the end."""
"""Ours; each task says which split of its dataset that is."""
