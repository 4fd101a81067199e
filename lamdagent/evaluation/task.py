"""Weighted tasks and the score: s = sum_k alpha_k * s_k over levelled task scores (paper, section 3.3)."""

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


@dataclass(frozen=True)
class Task:
    """One lm-eval task with its weight and the scale that levels it to [0, 1]."""

    name: str
    """The key under `tasks`; the MLflow metric is `task.<name>`."""
    task: str
    """lm-eval's task name: its own, or one in a YAML file under `folder`."""
    metric: str
    """lm-eval's metric with its filter, such as `acc,none`."""
    weight: float = 1.0
    """alpha_k after levelling, relative to the other tasks' weights; >= 0."""
    higher_is_better: bool = True
    """False for a loss or an error rate."""
    low: float = 0.0
    """The metric's value that levels to 0 (to 1 when lower is better)."""
    high: float = 1.0
    """The metric's value that levels to 1 (to 0 when lower is better)."""
    folder: str = ""
    """Folder of YAML tasks, or empty for the ones lm-eval ships."""
    splits: Mapping[str, str] = field(default_factory=lambda: {"search": "validation", "test": "test"})
    """Our split -> the dataset split that lm-eval reads; empty: the one that the task itself names."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Our split -> most items; absent = all. Always the same items."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further lm-eval task settings (num_fewshot, generation_kwargs, ...)."""
    question: str = ""
    """What the comparison with training data takes for an item's question, see `TaskConfig`; no part of the score."""
    vllm: Mapping[str, Any] | None = None
    """With these options of vLLM; None: with transformers, on the weights in memory."""
    fingerprint: str = ""
    """Hex digest of the task's settings and files: scores of unequal fingerprints are not compared."""

    def level(self, score: Score) -> Score:
        """`score` on the metric's own scale, levelled to [0, 1] and cut there."""
        span = self.high - self.low
        value = min(1.0, max(0.0, (score.value - self.low) / span))
        return Score(value if self.higher_is_better else 1.0 - value, score.stderr / abs(span))


def weighted_score(tasks: Sequence[Task], scores: Mapping[str, Score]) -> Score | None:
    """The weighted mean of levelled task scores in [0, 1], errors added in quadrature (tasks are independent samples).

    None when a task with a weight has no score, or one that is not a number.
    """
    weighed = [task for task in tasks if task.weight > 0]
    total = sum(task.weight for task in weighed)
    value = variance = 0.0
    for task in weighed:
        score = scores.get(task.name)
        if score is None or not math.isfinite(score.value):
            return None
        levelled = task.level(score)
        value += task.weight / total * levelled.value
        variance += (task.weight / total * levelled.stderr) ** 2
    return Score(value, math.sqrt(variance))
