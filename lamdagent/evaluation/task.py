"""Weighted tasks and the score: s = sum_k alpha_k * s_k over normalized task scores (paper, section 3.3)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["search", "test"]
"""`search` steers the search, `test` is touched once at its end. `train` belongs to the datasets."""


@dataclass(frozen=True)
class Score:
    """A value with its standard error, both on the same scale."""

    value: float
    stderr: float = 0.0


class DataUnavailable(Exception):
    """A task's items cannot be had now; the message says why."""


@dataclass(frozen=True)
class Item:
    """One evaluation item."""

    task: str
    """`Task.name`."""
    split: str
    """Ours: search or test."""
    id: str
    """Its own `id`, else its number in the split."""
    question: str


@dataclass(frozen=True)
class Task:
    """One lm-eval task with its weight and the scale that normalizes it to [0, 1]."""

    name: str
    """The key under `tasks`; the MLflow metric is `task.<name>`."""
    task: str
    """lm-eval's task name: its own, or one in a YAML file under `folder`."""
    metric: str
    """lm-eval's metric with its filter, such as `acc,none`."""
    weight: float = 1.0
    """alpha_k after normalization, relative to the other tasks' weights; >= 0."""
    higher_is_better: bool = True
    """False for a loss or an error rate."""
    low: float = 0.0
    """The metric's value that becomes 0 (to 1 when lower is better)."""
    high: float = 1.0
    """The metric's value that becomes 1 (to 0 when lower is better)."""
    folder: str = ""
    """Folder of YAML tasks, or empty for the ones lm-eval ships."""
    splits: Mapping[str, str] = field(default_factory=lambda: {"search": "validation", "test": "test"})
    """Our split -> the dataset split that lm-eval reads; empty: the one that the task itself names."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Our split -> most items; absent = all. Always the same items."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further lm-eval task settings (num_fewshot, generation_kwargs, ...)."""
    question: str = ""
    """Text of an item that is compared with training data, see `TaskConfig`; no part of the score."""
    backend: str = "hf"
    """Backend that scores it, see `backends.BACKENDS`; all tasks of a search have the same."""
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the backend itself; no part of the fingerprint."""
    fingerprint: str = ""
    """Hex digest of the task's settings and files: scores of unequal fingerprints are not compared."""

    def normalize(self, score: Score) -> Score:
        """`score` on the metric's own scale, normalized to [0, 1] and cut there."""
        span = self.high - self.low
        value = min(1.0, max(0.0, (score.value - self.low) / span))
        return Score(value if self.higher_is_better else 1.0 - value, score.stderr / abs(span))


def weighted_score(tasks: Sequence[Task], scores: Mapping[str, Score]) -> Score | None:
    """The weighted mean of normalized task scores; errors are added in quadrature, as of independent samples.

    None when a task with a weight has no score, or one that is not a number.
    """
    weighed = [task for task in tasks if task.weight > 0]
    total = sum(task.weight for task in weighed)
    value = variance = 0.0
    for task in weighed:
        score = scores.get(task.name)
        if score is None or not math.isfinite(score.value):
            return None
        normalized = task.normalize(score)
        value += task.weight / total * normalized.value
        variance += (task.weight / total * normalized.stderr) ** 2
    return Score(value, math.sqrt(variance))
