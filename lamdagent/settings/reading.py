"""From plain values to typed settings, all faults at once, each with what was given and what is allowed."""

import difflib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import yaml

from lamdagent.settings.fault import Fault, Path, dotted, given, shown
from lamdagent.settings.hints import as_meant, choices, core, hint_at, keys, wanted

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")
KEY = "[key]"
"""pydantic's mark of a fault in a name rather than in what it stands for."""
PACKAGES = {
    "experiment": "_global_",
    "model": "models.NAME",
    "dataset": "datasets.NAME",
    "action": "actions.NAME",
    "task": "tasks.NAME",
    "source": "memory.sources.NAME",
}
"""Config group -> where a file of it puts its keys; without that line they land under the group's own name."""
SWITCH = "YAML reads on, yes and true alike, and off, no and false; put a word in quotes"


def typed(cls: type[T], values: Mapping[Any, Any], faults: list[Fault]) -> T:
    """The settings that `values` describe; every key that cannot be used is added to `faults` and keeps its default."""
    from pydantic import ValidationError

    rest = as_meant(cls, deepcopy(values))
    while True:
        try:
            return cast(T, _adapter(cast(Any, cls)).validate_python(rest))
        except ValidationError as error:
            for found in error.errors(include_url=False):
                faults.append(_fault(cls, values, found))
                _remove(rest, faults[-1].path)


@cache
def _adapter(cls: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _remove(tree: Any, path: Path) -> None:
    for key in path[:-1]:
        tree = tree[key]
    if isinstance(tree, list):
        tree.clear()  # one wrong item, and the list is not what was meant
    else:
        tree.pop(path[-1], None)


def _fault(cls: type, values: Any, found: "ErrorDetails") -> Fault:
    loc = found["loc"]
    path = loc[: loc.index(KEY)] if KEY in loc else loc
    value, path = _original(values, path)
    at, hint = dotted(path), hint_at(cls, path)
    if found["type"] in ("unexpected_keyword_argument", "invalid_key"):
        return Fault(path, _unknown(cls, path, value))
    if KEY in loc:
        names = choices(_name_hint(cls, path))
        return Fault(path, f"{at}: there is no such name here" + _allowed(names) if names else f"{at}: {SWITCH}")
    if isinstance(value, bool):
        return Fault(path, f"{at}: got {given(value)}, wanted {_wanted(hint)} ({SWITCH})")
    if choices(hint):
        return Fault(path, f"{at}: got {given(value)}{_allowed(choices(hint))}")
    return Fault(path, f"{at}: got {given(value)}, wanted {wanted(hint)}")


def _name_hint(cls: type, path: Path) -> Any:
    return get_args(core(hint_at(cls, path[:-1]))[0])[0]


def _allowed(words: tuple[str, ...]) -> str:
    return f"; allowed: {', '.join(words)}"


def _wanted(hint: Any) -> str:
    return f"one of {', '.join(choices(hint))}" if choices(hint) else wanted(hint)


def _original(values: Any, loc: Path) -> tuple[Any, Path]:
    """The user's value at `loc`, and `loc` in the user's own keys: pydantic calls a key `true` 1."""
    path: list[Any] = []
    for key in loc:
        path.append(next((k for k in values if k == key), key) if isinstance(values, Mapping) else key)
        values = values[key]
    return values, tuple(path)


def _unknown(cls: type, path: Path, value: Any) -> str:
    name, group = shown(path[-1]), core(hint_at(cls, path[:-1]))[0]
    said = f"{dotted(path)}: unknown key."
    if len(path) == 1 and (hint := _of_package(cls, name, value)):
        return f"{said} {hint}"
    if len(path) > 1 and isinstance(value, Mapping) and not is_dataclass(core(hint_at(cls, path[:-2]))[0]):
        return f"{said} A dot parts keys; a name that holds one is given in one piece: {_in_one_piece(path, value)}"
    groups = {f"+{each}=...": each for each in PACKAGES} if len(path) == 1 else {}
    known = {repr(key): key for key in keys(group)} | groups
    close = difflib.get_close_matches(name, known.values(), 1)
    hint = "".join(f" did you mean {shown_as}?" for shown_as, key in known.items() if key in close)
    return f"{said}{hint} Allowed: {', '.join(sorted(keys(group)))}"


def _of_package(cls: type, name: str, value: Any) -> str:
    """For keys that a file has put in the wrong place; empty when that is not the fault."""
    first, dot, rest = name.partition(".")
    if dot and first in keys(cls):
        return f"Write it nested, {first}: {{{rest}: ...}}"
    if name in PACKAGES:
        return f"A file of your own in {name}/ begins with the line `# @package {PACKAGES[name]}`"
    if isinstance(value, Mapping) and value and set(value) <= set(keys(cls)):
        return "What stands in it belongs to the top: the file begins with the line `# @package _global_`"
    return ""


def _in_one_piece(path: Path, value: Any) -> str:
    """The override that sets an entry such as `llama-3.1`, whose name Hydra has cut at its dots."""
    name = [shown(key) for key in path[-2:]]
    while len(value) == 1 and isinstance(next(iter(value.values())), Mapping):
        name += [shown(key) for key in value]
        (value,) = value.values()
    text = yaml.safe_dump({".".join(name): value}, default_flow_style=True, width=10_000).strip()
    return f"'+{dotted(path[:-2])}={text}'"
