"""Reward functions for scripts: those of this package travel as source text, a user's own has to be at hand."""

import inspect
import re
from collections.abc import Sequence
from importlib import import_module

from lamdagent.rewards.mix import Term

FOLDER = "rewards"
"""Folder of this package's modules, flat, beside the scripts."""
OURS = re.compile(r"^from lamdagent\.(?:\w+\.)*(\w+) import", re.MULTILINE)


def imported(terms: Sequence[Term]) -> str:
    """The lines of a script that bind `reward_1`, `reward_2`, ...; empty without rewards."""
    return "".join(_line(term, number) for number, term in enumerate(terms, 1))


def sources(terms: Sequence[Term]) -> dict[str, str]:
    """File -> text of this package's modules that the rewards need."""
    waiting = [_module(term) for term in terms if _ours(term)]
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        text = inspect.getsource(import_module(name))
        found[f"{FOLDER}/{name.rpartition('.')[2]}.py"] = OURS.sub(rf"from {FOLDER}.\1 import", text)
        waiting += [match.group().split()[1] for match in OURS.finditer(text)]
    return found


def _line(term: Term, number: int) -> str:
    module, name = _module(term), term.function.partition(":")[2]
    if not _ours(term):
        return f"from {module} import {name} as reward_{number}  # your own code: {module} must be on PYTHONPATH\n"
    return f"from {FOLDER}.{module.rpartition('.')[2]} import {name} as reward_{number}\n"


def _module(term: Term) -> str:
    return term.function.partition(":")[0]


def _ours(term: Term) -> bool:
    return _module(term).startswith("lamdagent.")
