"""`python -m lamdagent history`: what is understood of others' runs, on paper. Nothing is run, and nothing is written.

With `memory.sources` it explains each of their runs; without, it lists the store's experiments and suggests sources.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lamdagent.config import Config, read
from lamdagent.loop.terminal import standard_output
from lamdagent.memory.external.feed import Sources
from lamdagent.memory.external.parse import Ours, Reading, known_names
from lamdagent.memory.external.suggestion import suggest
from lamdagent.memory.history import build_history
from lamdagent.memory.lineage import figure
from lamdagent.memory.trial import Trial
from lamdagent.planning.plan import Outline, make_outline, stand_in
from lamdagent.text import one_line
from lamdagent.tracking.external import Sample, open_to_read
from lamdagent.tracking.queries import BASES
from lamdagent.tracking.schema import KIND

OUR_BASES = f"tags.`{KIND}` = 'base'"
"""MLflow filter for the runs of our base models."""
SHOWN = 40
"""Most runs of a source in the table; `--json` has all."""


def start(node: DictConfig, as_json: bool = False) -> None:
    """Explain, to standard output.

    Raises:
        UserError: there is no store, or the configuration is wrong.
    """
    config = read(node)
    outline = make_outline(config)
    reader = open_to_read(config.tracking.uri)
    own_id = reader.experiment_id(config.tracking.experiment)
    if not config.memory.sources:
        samples = [s for s in reader.samples() if s.experiment_id != own_id or not config.actions]
        _overview(samples, config, as_json)
        return
    sources = Sources(reader, config.memory.sources, own_id)
    warnings = sources.refresh()
    readings = sources.readings(_ours(outline, reader.newest(own_id, OUR_BASES, BASES) if own_id else []))
    gaps = {name for name, found in readings.items() if not any(r.trial and r.trial.scores for r in found)}
    wanted = [str(e) for name in gaps for e in config.memory.sources[name].experiments]
    samples = [s for s in reader.samples() if wanted and {s.name, s.experiment_id} & set(wanted)]
    if as_json:
        found = {name: _summary(rows) for name, rows in readings.items()}
        print(json.dumps({"sources": found, "warnings": warnings, "suggested": _suggestions(samples, config)}))
        return
    console = standard_output()
    for warning in warnings:
        _say(console, warning, "yellow")
    for name, rows in readings.items():
        _explain(console, name, rows)
    if samples:
        _say(console, "\nNo run has a score that counts here. From what the runs hold, perhaps:")
        _say(console, _yaml(_suggestions(samples, config)))


def _ours(outline: Outline, records: Sequence[Any]) -> Ours:
    """What a search would know: stand-ins for the initial models, the base's score if one has been taken."""
    config = outline.config
    models = [stand_in(name, settings.source) for name, settings in config.models.items()]
    past = build_history(records, outline.types, outline.datasets, outline.tasks)
    base = next((t.scores for t in past.scored if t.kind == "base"), {})
    return Ours(outline.types, outline.datasets, outline.tasks, known_names(config.models, models), base)


def _explain(console: Console, name: str, rows: Sequence[Reading]) -> None:
    summary = _summary(rows)
    table = Table(title=f"memory.sources.{name}", title_justify="left")
    for head in ("run", "understood as", "score", "joins", "notes, or why it is skipped"):
        table.add_column(head, overflow="fold")
    for row in list(reversed(rows))[:SHOWN]:
        trial = row.trial
        what = trial.action.describe() if trial and trial.action else "a model" if trial else "-"
        what += " (failed)" if trial and trial.status == "failed" else ""
        joins = trial.model.name if trial and trial.model and trial.model.location else ""
        cells = (row.name, one_line(what, 300), _score(trial), joins)
        table.add_row(*map(Text, cells), Text("; ".join(row.notes) or row.skipped, style="" if trial else "yellow"))
    console.print(table)
    left = f"; the newest {SHOWN} are shown" if len(rows) > SHOWN else ""
    counts = ", ".join(f"{summary[key]} {word}" for key, word in COUNTS.items())
    _say(console, f"{name}: {len(rows)} runs, {counts}{left}")


def _score(trial: Trial | None) -> str:
    """The weighted score; the tasks' own while our base is not scored and has to stand in for one of them."""
    if trial is None or trial.score:
        return figure(trial.score if trial else None)
    return ", ".join(f"{name} {figure(score)}" for name, score in trial.scores.items()) or "-"


COUNTS = {
    "understood": "understood",
    "scored": "with a score",
    "failed": "failed",
    "models": "models join the pool",
    "skipped": "skipped",
}


def _summary(rows: Sequence[Reading]) -> dict[str, Any]:
    trials = [r.trial for r in rows if r.trial]
    return {
        "runs": len(rows),
        "understood": len(trials),
        "scored": len([t for t in trials if t.scores]),
        "failed": len([t for t in trials if t.status == "failed"]),
        "models": len([t for t in trials if t.model and t.model.location]),
        "skipped": len(rows) - len(trials),
        "readings": [_plain(r) for r in rows],
    }


def _plain(row: Reading) -> dict[str, Any]:
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


def _overview(samples: Sequence[Sample], config: Config, as_json: bool) -> None:
    found = _suggestions(samples, config)
    if as_json:
        rows = [{"id": s.experiment_id, "name": s.name, "runs": len(s.records), "more": s.more} for s in samples]
        print(json.dumps({"experiments": rows, "suggested": found}))
        return
    console = standard_output()
    table = Table(title="Experiments of the store", title_justify="left")
    for head in ("experiment", "runs", "logged models", "mapping that fits"):
        table.add_column(head, overflow="fold")
    fits = {s["experiments"][0]: s["mapping"] for s in found["memory"]["sources"].values()}
    for s in samples:
        count = f"{len(s.records)}{'+' if s.more else ''}"
        table.add_row(*map(Text, (one_line(s.name, 80), count, "yes" if s.logged else "", fits.get(s.name, ""))))
    console.print(table)
    _say(console, "To seed a search with them, paste into your experiment what is right of this:")
    _say(console, _yaml(found))


def _suggestions(samples: Sequence[Sample], config: Config) -> dict[str, Any]:
    sources: dict[str, Any] = {}
    for found in (s for s in samples if s.records):
        slug = re.sub(r"[^a-z0-9]+", "_", found.name.lower()).strip("_")[:40] or f"experiment_{found.experiment_id}"
        name = slug if slug not in sources else f"{slug}_{found.experiment_id}"
        sources[name] = suggest(found.name, found.records, found.logged, config)
    return {"memory": {"sources": sources}}


def _yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=110))


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
