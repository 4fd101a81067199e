"""Type hints of keys: what each allows, in words, and what a YAML switch means there."""

import types
from collections.abc import Hashable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le

from lamdagent.settings.fault import Path

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
SWITCHES = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
"""YAML 1.1 reads the bare words as these."""
NAMES = {True: "on", False: "off"}


def keys(cls: Any) -> Mapping[str, Any]:
    """Every key of a group of settings with its type, range included."""
    return _keys(cls)


@cache
def _keys(cls: Hashable) -> Mapping[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def core(hint: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """The type without null and ranges, its ranges, and whether it may be null."""
    nullable, ranges = False, ()
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        nullable = True
    if get_origin(hint) is Annotated:
        hint, *found = get_args(hint)
        ranges = tuple(found)
    return hint, ranges, nullable


def hint_at(cls: type, path: Path) -> Any:
    """The type of what stands at `path` in a group of settings."""
    hint: Any = cls
    for key in path:
        base = core(hint)[0]
        if is_dataclass(base):
            hint = keys(base).get(key, Any)
        else:
            hint = get_args(base)[-1] if get_origin(base) in (dict, list) else Any
    return hint


def choices(hint: Any) -> tuple[str, ...]:
    """The words that a key allows; empty where it does not list them."""
    base = core(hint)[0]
    return get_args(base) if get_origin(base) is Literal else ()


def wanted(hint: Any) -> str:
    """Values that a key takes, in words, such as `a whole number of at least 1, or null`."""
    base, ranges, nullable = core(hint)
    words = " ".join([_kind(base), " and ".join(_range(each) for each in ranges)]).strip()
    return f"{words}, or null" if nullable else words


def _kind(base: Any) -> str:
    if is_dataclass(base):
        return f"a group of settings: {', '.join(keys(base))}"
    if get_origin(base) is dict:
        return f"a mapping from names to {_kind(core(get_args(base)[1])[0])}"
    if get_origin(base) is list:
        return "a list"
    return WORDS.get(base, "settings")


def _range(limit: Any) -> str:
    match limit:
        case Ge(least):
            return f"of at least {least}"
        case Gt(bound):
            return f"above {bound}"
        case Le(most):
            return f"at most {most}"
    return ""


def as_meant(hint: Any, value: Any) -> Any:
    """`value` with YAML's switches as the key means them, at any depth.

    A file's `off` arrives as false. Where `off` is one of the choices, it is that word; where a number is wanted, it is
    no number.
    """
    base = core(hint)[0]
    if isinstance(value, Mapping):
        return {key: as_meant(hint_at(base, (key,)), each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_meant(hint_at(base, (0,)), each) for each in value]
    return _switched(base, value)


def _switched(base: Any, value: Any) -> Any:
    switch = SWITCHES.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None
    if switch is not None and NAMES[switch] in choices(base):
        return NAMES[switch]
    return str(value) if isinstance(value, bool) and base in (int, float) else value
