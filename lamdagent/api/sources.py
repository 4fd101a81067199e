"""`lamdagent.sources`: what a search would understand of others' MLflow runs. Nothing is run or written."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdagent.api.composing import Overrides, compose
from lamdagent.config import Config, read
from lamdagent.memory.external.context import ParsedRun, SearchContext, known_names
from lamdagent.memory.external.feed import Sources
from lamdagent.memory.external.suggestion import suggest
from lamdagent.memory.history import build_history
from lamdagent.planning.plan import Plan, make_outline, stand_in
from lamdagent.tracking.external import Sample, open_to_read
from lamdagent.tracking.queries import BASES
from lamdagent.tracking.schema import KIND

if TYPE_CHECKING:
    from lamdagent.tracking.runs import RunRecord

OUR_BASES = f"tags.`{KIND}` = 'base'"
"""MLflow filter for the runs of our base models."""


@dataclass(frozen=True)
class ForeignRuns:
    """Others' runs in the store, and what is understood of them."""

    readings: Mapping[str, Sequence[ParsedRun]] = field(default_factory=dict)
    """Name under `memory.sources` -> its runs, oldest first, each a trial or the reason why it is skipped."""
    warnings: Sequence[str] = ()
    experiments: Sequence[Sample] = ()
    """Experiments of the store that settings are suggested for: all of others' without `memory.sources`, else those
    whose runs have no score that counts."""
    suggested: Mapping[str, Any] = field(default_factory=dict)
    """Settings to paste into an experiment and to correct: `{"memory": {"sources": {...}}}`."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        if not self.readings:
            rows = [self._about(one) for one in self.experiments]
            return {"experiments": rows, "suggested": self.suggested}
        found = {name: _summary(rows) for name, rows in self.readings.items()}
        return {"sources": found, "warnings": list(self.warnings), "suggested": self.suggested}

    @staticmethod
    def _about(one: Sample) -> dict[str, Any]:
        return {"id": one.experiment_id, "name": one.name, "runs": len(one.records), "more": one.more}


def sources(
    experiment: str | None = None, overrides: Overrides = (), *, config_dir: str | Path | None = None
) -> ForeignRuns:
    """Others' runs as a search would understand them: actions, inputs, normalized scores, and why some are skipped.

    Without `memory.sources` in the configuration, the store's experiments with suggestions for such settings.

    Args:
        experiment: As for `search`.
        overrides: As for `search`, such as `["+source=trl", "memory.sources.trl.experiments=[theirs]"]`.
        config_dir: As for `search`.

    Raises:
        UserError: there is no store, or the configuration is wrong.
    """
    return understood(read(compose(experiment, overrides, config_dir).node))


def understood(config: Config) -> ForeignRuns:
    """`sources` with a configuration that is composed already."""
    outline = make_outline(config)
    reader = open_to_read(config.tracking.uri)
    own_id = reader.experiment_id(config.tracking.experiment)
    if not config.memory.sources:
        samples = [s for s in reader.samples() if s.experiment_id != own_id or not config.actions]
        return ForeignRuns(experiments=samples, suggested=_suggestions(samples, config))
    feed = Sources(reader, config.memory.sources, own_id)
    warnings = feed.refresh()
    bases = reader.newest(own_id, OUR_BASES, BASES) if own_id else []
    readings = feed.readings(_ours(outline, bases))
    samples = _without_scores(reader.samples(), readings, config)
    return ForeignRuns(readings, warnings, samples, _suggestions(samples, config))


def count(rows: Sequence[ParsedRun]) -> dict[str, int]:
    """How many runs of a source are understood, scored, failed, join the pool, or are skipped."""
    trials = [r.trial for r in rows if r.trial]
    return {
        "runs": len(rows),
        "understood": len(trials),
        "scored": len([t for t in trials if t.scores]),
        "failed": len([t for t in trials if t.status == "failed"]),
        "models": len([t for t in trials if t.model and t.model.location]),
        "skipped": len(rows) - len(trials),
    }


def _without_scores(
    samples: Sequence[Sample], readings: Mapping[str, Sequence[ParsedRun]], config: Config
) -> list[Sample]:
    """Samples of the sources in which no run has a score that counts."""
    gaps = {name for name, found in readings.items() if not any(r.trial and r.trial.scores for r in found)}
    wanted = {str(e) for name in gaps for e in config.memory.sources[name].experiments}
    return [s for s in samples if {s.name, s.experiment_id} & wanted]


def _ours(outline: Plan, records: "Sequence[RunRecord]") -> SearchContext:
    """Context of a search: stand-ins for the initial models, the base's score if one has been taken."""
    config = outline.config
    models = [stand_in(name, settings.source) for name, settings in config.models.items()]
    past = build_history(records, outline.types, outline.datasets, outline.tasks)
    base = next((t.scores for t in past.scored if t.kind == "base"), {})
    return SearchContext(outline.types, outline.datasets, outline.tasks, known_names(config.models, models), base)


def _summary(rows: Sequence[ParsedRun]) -> dict[str, Any]:
    return {**count(rows), "readings": [_plain(row) for row in rows]}


def _plain(row: ParsedRun) -> dict[str, Any]:
    trial = row.trial
    known: dict[str, Any] = {"run_id": row.run_id, "name": row.name, "notes": row.notes, "skipped": row.skipped}
    if trial is None:
        return known
    action = trial.action
    return known | {
        "status": trial.status,
        "action": action.type if action else None,
        "inputs": {slot: list(names) for slot, names in action.slots.items()} if action else {},
        "hyperparameters": {k: action.hyperparameters[k] for k in action.choices} if action else {},
        "score": dataclasses.asdict(trial.score) if trial.score else None,
        "tasks": {name: dataclasses.asdict(score) for name, score in trial.scores.items()},
        "parents": trial.parents,
        "model": trial.model.name if trial.model else None,
        "location": trial.model.location if trial.model else None,
    }


def _suggestions(samples: Sequence[Sample], config: Config) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in (s for s in samples if s.records):
        slug = re.sub(r"[^a-z0-9]+", "_", one.name.lower()).strip("_")[:40] or f"experiment_{one.experiment_id}"
        name = slug if slug not in found else f"{slug}_{one.experiment_id}"
        found[name] = suggest(one.name, one.records, one.logged, config)
    return {"memory": {"sources": found}}
