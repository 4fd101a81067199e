"""The scores and gains that a run record holds."""

import math
from collections.abc import Sequence
from typing import get_args

from lamdagent.evaluation.gain import Gain, Pairing
from lamdagent.evaluation.task import Score, Task
from lamdagent.text import parse_json
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord


def fraction_of(record: RunRecord) -> float:
    """Share of the data that an action was given; runs that do not say it had all of it."""
    try:
        return float(record.params.get("data_fraction", 1.0))
    except ValueError:  # anyone may write a param
        return 1.0


def scores_on(record: RunRecord, tasks: Sequence[Task], prefix: str) -> dict[str, Score]:
    """The run's scores on those of `tasks` that are still the same items and settings as when it was scored."""
    metrics, current, found = record.metrics, parse_json(record.tags.get(schema.TASKS), {}), {}
    for task in (task for task in tasks if current.get(task.name) == task.fingerprint):
        key = prefix + task.name
        if key in metrics:
            found[task.name] = Score(metrics[key], metrics.get(key + schema.STDERR_SUFFIX, 0.0))
    return found


def stored_gain(record: RunRecord, prefix: str) -> Gain | None:
    """The gain on the run, on the search split, or with `schema.TEST_PREFIX` on the test split; None without one."""
    key = prefix + schema.GAIN
    value, error = record.metrics.get(key), record.metrics.get(key + schema.STDERR_SUFFIX)
    if value is None or error is None or not math.isfinite(value + error):
        return None
    told = parse_json(record.tags.get(schema.PAIRING), {})
    said = told.get("test" if prefix else "search") if isinstance(told, dict) else None
    return Gain(value, error, next((pairing for pairing in get_args(Pairing) if pairing == said), "unpaired"))
