"""The single-turn Python items of the Berkeley Function Calling Leaderboard (https://gorilla.cs.berkeley.edu/leaderboard.html).

A line of `BFCL_v4_simple_python.json` and the answer that belongs to it (shortened):

    {"id": "simple_python_0", "question": [[{"role": "user", "content": "Find the area of a triangle with ..."}]],
     "function": [{"name": "calculate_triangle_area", "description": "...", "parameters": {"type": "dict",
                   "properties": {"base": {"type": "integer"}, ...}, "required": ["base", "height"]}}]}
    {"id": "simple_python_0", "ground_truth": [{"calculate_triangle_area": {"base": [10], "unit": ["units", ""]}}]}

A parameter has a list of right values; "" among them means that it may be left out.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lamdagent.objects.ngram_overlap import without
from lamdagent.objects.wheels import wheel_files
from lamdagent.tooluse.call import Call
from lamdagent.tooluse.checker import judge
from lamdagent.tooluse.prompt import ask, signature

PACKAGE, VERSION = "bfcl-eval", "2026.3.23"
SHA256 = "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"
FOLDER = "bfcl_eval/data"
CALL_FILES = ("simple_python", "multiple", "live_simple", "live_multiple")
"""Categories with exactly one call per item."""
NONE_FILES = ("irrelevance", "live_irrelevance")
"""Categories where no function fits."""
SALT = "2"
"""Cuts the splits and orders the items; another salt is another cut, and then every task's version goes up."""
LONGEST = 480
"""Characters of question and signatures; longer items are left out, since a CPU reads about 1,000 tokens a second."""

ItemSplit = Literal["train", "search", "test"]


PER_FUNCTION = 2
"""Most search (and test) items with the same right function."""


@dataclass(frozen=True)
class Item:
    """One question with the functions on offer and the calls that are right."""

    id: str
    category: str
    """One of CALL_FILES or NONE_FILES."""
    question: str
    functions: tuple[Mapping[str, Any], ...]
    """As upstream: name, description, parameters (a JSON schema with Python type names)."""
    function: str = ""
    """Name of the right function; empty where none fits."""
    answers: Mapping[str, list[Any]] | None = None
    """Parameter -> right values ("" = may be left out); None where no function fits."""

    @property
    def split(self) -> ItemSplit:
        """By a hash of the id, 60/20/20; the paraphrases of one live item (`live_simple_4-3-0`, `-1`) stay together."""
        family = re.sub(r"_\d+-(\d+)-\d+$", r"_\1", self.id)
        bucket = int(hashlib.sha256(f"split {SALT} {family}".encode()).hexdigest(), 16) % 5
        return "search" if bucket == 3 else "test" if bucket == 4 else "train"

    @property
    def gold(self) -> Call | None:
        """The shortest right call: first values, nothing that may be left out. None where no function fits."""
        if self.answers is None:
            return None
        called = next(function for function in self.functions if function["name"] == self.function)
        required = called["parameters"].get("required", ())
        kept = {n: _first(values) for n, values in self.answers.items() if n in required or "" not in values}
        return Call(self.function, kept)


def items(split: ItemSplit, *, calls: bool) -> tuple[Item, ...]:
    """Items with one right call (or, without `calls`, where no function fits) of a split, in a fixed shuffled order.

    No train item holds a question of another split, or 13 words in a row of one (see evaluation/overlap.py): the live
    items have paraphrases under other ids. Of the search and test items at most `PER_FUNCTION` share a right function:
    they come in bunches (a dozen near-equal questions for one weather function), and a standard error means nothing
    over items that stand or fall together.

    Raises:
        UserError: the package cannot be fetched and is not cached.
    """
    every = _training_items() if split == "train" else _all_items()
    chosen = [item for item in every if item.split == split and (item.answers is not None) == calls]
    if split == "train":
        return tuple(chosen)
    seen: Counter[str] = Counter()
    return tuple(item for item in chosen if not item.function or _nth(seen, item.function) <= PER_FUNCTION)


def _nth(seen: Counter[str], name: str) -> int:
    seen[name] += 1
    return seen[name]


@cache
def by_id() -> Mapping[str, Item]:
    """Every item that is short enough, of all splits."""
    return {item.id: item for item in _all_items()}


def upstream() -> Iterator[Item]:
    """Every item of the categories as the benchmark has it: too long ones and those without a writable answer too."""
    members = [f"{FOLDER}/BFCL_v4_{name}.json" for name in CALL_FILES + NONE_FILES]
    members += [f"{FOLDER}/possible_answer/BFCL_v4_{name}.json" for name in CALL_FILES]
    folder = wheel_files(PACKAGE, VERSION, SHA256, tuple(members)) / FOLDER
    for name in CALL_FILES + NONE_FILES:
        yield from _read(folder, name)


@cache
def _all_items() -> tuple[Item, ...]:
    found = [item for item in upstream() if _usable(item)]
    return tuple(sorted(found, key=lambda item: hashlib.sha256(f"order {SALT} {item.id}".encode()).hexdigest()))


@cache
def _training_items() -> tuple[Item, ...]:
    train = [item for item in _all_items() if item.split == "train"]
    held_out = [item.question for item in _all_items() if item.split != "train"]
    return tuple(without(train, ([ask(item.functions, item.question)] for item in train), held_out))


def _read(folder: Path, category: str) -> Iterator[Item]:
    truths = {}
    if category in CALL_FILES:
        answers = _lines(folder / "possible_answer" / f"BFCL_v4_{category}.json")
        truths = {row["id"]: row["ground_truth"] for row in answers}
    for row in _lines(folder / f"BFCL_v4_{category}.json"):
        messages = [message for turn in row["question"] for message in turn]
        truth = truths.get(row["id"])
        if [message["role"] for message in messages] != ["user"] or (truth is not None and len(truth) != 1):
            continue
        name, right = next(iter(truth[0].items())) if truth else ("", None)
        yield Item(row["id"], category, messages[0]["content"].strip(), tuple(row["function"]), name, right)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _usable(item: Item) -> bool:
    """Short enough, and its answer can be written as a Python call (a few names such as `from` cannot)."""
    length = len(item.question) + sum(len(signature(function)) for function in item.functions)
    if not item.question or not item.functions or length > LONGEST:
        return False
    return item.answers is None or judge(str(item.gold), item.functions, item.function, item.answers) == "right"


def _first(values: list[Any]) -> Any:
    """The first right value, with the lists of alternatives inside dicts resolved the same way."""
    return _plain(next((value for value in values if value != ""), None))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        lists = {key: options if isinstance(options, list) else [options] for key, options in value.items()}
        return {key: _first(options) for key, options in lists.items() if "" not in options}
    return [_plain(element) for element in value] if isinstance(value, list) else value
