"""Every training dataset against every task's items: what is found, in sentences and as records."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lamdagent.evaluation.task import Item
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.kinds import dataset_kind
from lamdagent.objects.ngram_overlap import LENGTH, Questions

SHOWN = 3
"""Rows that a sentence names; it counts them all."""
EXCERPT = 60
"""Letters of a question that a sentence quotes."""


@dataclass(frozen=True)
class Leak:
    """A training row that holds an evaluation item, or a part of it."""

    dataset: str
    rows: int
    """Rows of the dataset in all."""
    row: int
    """Its number among the dataset's rows, from 0."""
    item: Item
    exact: bool
    """The whole question, not just some words of it."""

    def __str__(self) -> str:
        """For a person."""
        how = "the whole question" if self.exact else f"{LENGTH} words in a row"
        question = " ".join(self.item.question.split())
        question = question if len(question) <= EXCERPT else question[: EXCERPT - 1] + "…"
        return f"row {self.row} ({how} of {self.item.task}'s {self.item.split} item {self.item.id}: {question!r})"

    def to_dict(self) -> dict[str, Any]:
        """For a machine."""
        item = {"task": self.item.task, "split": self.item.split, "item": self.item.id, "question": self.item.question}
        return {"dataset": self.dataset, "row": self.row, "exact": self.exact, **item}


def leaks(datasets: Sequence[Dataset], items: Sequence[Item]) -> list[Leak]:
    """The rows that hold one of `items`, by dataset in their order; a row with several is told once."""
    questions = Questions([item.question for item in items])
    return [
        Leak(dataset.name, dataset.rows, found.row, items[found.item], found.exact)
        for dataset in datasets
        for found in questions.overlaps(_texts(_rows(dataset), dataset.kind))
    ]


def leaks_among(name: str, kind: str, rows: Sequence[Mapping[str, Any]], items: Sequence[Item]) -> list[Leak]:
    """A leak for each of `rows` that holds one of `items`; `name` stands in for a dataset's."""
    found = Questions([item.question for item in items]).overlaps(_texts(rows, kind))
    return [Leak(name, len(rows), one.row, items[one.item], one.exact) for one in found]


def told(several: Sequence[Leak]) -> str:
    """How many rows of one dataset, and the first few."""
    more = f" and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
    named = ", ".join(map(str, several[:SHOWN])) + more
    return f"{len(several)} of {several[0].rows} rows hold evaluation items: {named}"


def sentences(found: Sequence[Leak]) -> list[str]:
    """One for each dataset: how many of its rows, and the first few."""
    groups = groupby(found, key=lambda leak: leak.dataset)
    return [f"datasets.{name}: {told(list(group))}" for name, group in groups]


def summary(found: Sequence[Leak]) -> str:
    """One line without examples, for a tag, the report and the model card; empty when nothing was found."""
    parts = []
    for name, group in groupby(found, key=lambda leak: leak.dataset):
        several = list(group)
        tasks = ", ".join(sorted({leak.item.task for leak in several}))
        parts.append(f"{len(several)} of {several[0].rows} rows of {name} (in {tasks})")
    return f"Training data hold evaluation items: {'; '.join(parts)}. Scores may flatter." if parts else ""


def _rows(dataset: Dataset) -> Iterator[Mapping[str, Any]]:
    with open(dataset.path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def _texts(rows: Iterable[Mapping[str, Any]], kind: str) -> Iterator[list[str]]:
    """Texts that a model sees of each row, one for each cell or message."""
    yield from map(dataset_kind(kind).texts_of, rows)
