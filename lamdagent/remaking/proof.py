"""Did the same model come out? By its scores, item by item, where its weights differ."""

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path

from lamdagent.evaluation.task import Score

NOISE = 2.0
"""Standard errors of a difference within which two scores count as equal."""


def items_of(text: str) -> dict[str, float]:
    """Item -> score, of a file of samples; empty when its metric is none of single items."""
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    scores = {str(row["id"]): row["score"] for row in rows}
    plain = len(scores) == len(rows) and all(isinstance(score, int | float) for score in scores.values())
    return {key: float(score) for key, score in scores.items()} if plain else {}


def difference(old: Score, new: Score, before: Mapping[str, float], after: Mapping[str, float]) -> Score:
    """New minus old with its standard error: over pairs where both were measured on the same items."""
    if len(before) > 1 and before.keys() == after.keys():
        changes = [after[key] - before[key] for key in before]
        return Score(statistics.fmean(changes), statistics.stdev(changes) / math.sqrt(len(changes)))
    return Score(new.value - old.value, math.hypot(old.stderr, new.stderr))


def within_noise(found: Score) -> bool:
    """Whether a difference may be nothing."""
    return abs(found.value) <= NOISE * found.stderr


def read_items(folder: Path, task: str) -> dict[str, float]:
    """`items_of` the samples that an evaluation left in `folder`."""
    return items_of((folder / f"{task}.jsonl").read_text(encoding="utf-8"))
