"""Runs of this package from another experiment as trials."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lamdagent.memory.external.context import ParsedRun, SearchContext
from lamdagent.memory.history import build_history
from lamdagent.text import one_line
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord, Weights


def parse_own_runs(
    name: str, records: Sequence[RunRecord], ours: SearchContext, weights: Mapping[str, Weights]
) -> list[ParsedRun]:
    """Runs of this package from another experiment; scores of tasks with other items or settings are left out."""
    trials = build_history([r for r in records if _readable(r)], ours.types, ours.datasets, ours.tasks).by_run
    readings = []
    for record in records:
        label, trial = one_line(record.name, 80), trials.get(record.run_id)
        if trial is None or trial.status == "running":
            readings.append(ParsedRun(record.run_id, label, skipped=_no_trial(record)))
            continue
        notes = []
        found = weights.get(record.run_id, Weights())
        if trial.model:
            trial = dataclasses.replace(trial, model=dataclasses.replace(trial.model, location=found.location))
            notes += ["no score: its tasks have other items or settings"] * (trial.score is None)
        notes += [f"the model cannot join the pool: {found.problem}"] if found.problem else []
        # What their search read of its test split is none of ours.
        blank: dict[str, Any] = {"test_scores": {}, "test_score": None, "test_gain": None}
        trial = dataclasses.replace(trial, source=name, name=label, **blank)
        readings.append(ParsedRun(record.run_id, label, trial, tuple(notes)))
    return readings


def _readable(record: RunRecord) -> bool:
    return record.tags.get(schema.SCHEMA_TAG) == schema.SCHEMA


def _no_trial(record: RunRecord) -> str:
    if not _readable(record):
        return "no run of this package, or one of another version"
    return "the search itself" if record.kind == "search" else "it has not ended"
