"""A skill: one question-answering data set as training rows and as evaluation items that never overlap."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from lamdagent.objects.ngram_overlap import without
from lamdagent.skills.hub import Row, Rows, load, split_of

EXAMPLES = 5
"""Training rows that evaluation may show as worked examples, so that a gain over the base is not mere format."""


@dataclass(frozen=True)
class Skill:
    """A data set with a column `question`, and how its rows are asked and answered."""

    source: str
    """Hub id."""
    subset: str | None
    """Hub configuration name."""
    held_out: str
    """The official split with public answers that nobody trains on; the search and test items come from it."""
    columns: tuple[str, ...]
    """The columns that are read, `question` among them."""
    ask: Callable[[Row], str]
    """Row -> prompt, without whitespace at its end."""
    reply: Callable[[Row], str]
    """Row -> the right answer in the form that the prompt asks for."""


def training(skill: Skill, source: str, plain: bool) -> Rows:
    """`sft` rows of the official train split, less those that hold a held-out question or 13 words in a row of one.

    Conversational; with `plain`, text for models without a chat template.

    Raises:
        UserError: the data set cannot be had.
    """
    held_out = [row["question"] for row in load(source, skill.subset, skill.held_out, ("question",))]
    rows = load(source, skill.subset, "train", skill.columns)
    kept = without(rows, ([row["question"], skill.reply(row)] for row in rows), held_out)
    return [turn(skill.ask(row), skill.reply(row), plain) for row in kept]


def turn(prompt: str, reply: str, plain: bool = False) -> Row:
    """One `sft` row. The space before a plain reply is the one that lm-eval puts there."""
    if plain:
        return {"prompt": prompt, "completion": f" {reply}"}
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": reply}],
    }


@cache
def evaluation(skill: Skill, source: str) -> dict[str, Any]:
    """The held-out items as `datasets.Dataset`s `search` and `test`, and the worked `examples` from the train split.

    Read once per process: a hub that is down later costs nothing.

    Raises:
        UserError: the data set cannot be had.
    """
    from datasets import Dataset

    rows = load(source, skill.subset, skill.held_out, skill.columns)
    halves = {s: [row for row in rows if split_of(row["question"]) == s] for s in ("search", "test")}
    halves["examples"] = load(source, skill.subset, f"train[:{EXAMPLES}]", skill.columns)
    return {name: Dataset.from_list([_item(skill, row) for row in half]) for name, half in halves.items()}


def _item(skill: Skill, row: Row) -> Row:
    return {**row, "prompt": skill.ask(row), "target": skill.reply(row)}
