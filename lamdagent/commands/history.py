"""`python -m lamdagent history`: what is understood of others' runs, on paper. Nothing is run, and nothing is written.

With `memory.sources` it explains each of their runs; without, it lists the store's experiments and suggests sources.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lamdagent.commands import Command, Request

if TYPE_CHECKING:
    from lamdagent.api.sources import ForeignRuns
    from lamdagent.loop.terminal import Terminal
    from lamdagent.memory.external.context import ParsedRun
    from lamdagent.memory.trial import Trial

HELP = """python -m lamdagent history [+experiment=NAME] [key=value ...] [--json]

Shows what a search would understand of others' MLflow runs: which action each run was, its inputs and normalized score,
what is skipped and why, which models would join the pool. Runs nothing and writes nothing.

  python -m lamdagent history                          the store's experiments and a source for each, to paste
  python -m lamdagent history +experiment=mine +source=trl memory.sources.trl.experiments=[theirs]
  --json                                               the same for machines, on standard output

Ready-made sources: trl, transformers, params, lamdagent (conf/source); several of a kind under names of yours:
+source@memory.sources.first=trl +source@memory.sources.second=trl"""
SHOWN = 40
"""Most runs of a source in the table; `--json` has all."""
HEADS = ("run", "understood as", "score", "joins", "notes, or why it is skipped")
COUNTS = {
    "understood": "understood",
    "scored": "with a score",
    "failed": "failed",
    "models": "models join the pool",
    "skipped": "skipped",
}


def run(request: Request) -> None:
    """Explain, to standard output.

    Raises:
        UserError: there is no store, or the configuration is wrong.
    """
    from lamdagent.api.sources import understood
    from lamdagent.config import read
    from lamdagent.loop.terminal import Terminal

    found = understood(read(request.composed.node))
    if "--json" in request.flags:
        print(json.dumps(found.to_dict()))
    elif found.readings:
        _explain(found, Terminal())
    else:
        _overview(found, Terminal())


def _explain(found: "ForeignRuns", view: "Terminal") -> None:
    for warning in found.warnings:
        view.say(warning, "yellow")
    for name, rows in found.readings.items():
        _show(name, rows, view)
    if found.experiments:
        view.say("\nNo run has a score that counts here. From what the runs hold, perhaps:")
        view.say(_yaml(found.suggested))


def _show(name: str, rows: "Sequence[ParsedRun]", view: "Terminal") -> None:
    from lamdagent.api.sources import count

    shown = list(reversed(rows))[:SHOWN]
    styles = ["" if row.trial else "yellow" for row in shown]
    view.table(f"memory.sources.{name}", HEADS, map(_row, shown), styles=styles)
    left = f"; the newest {SHOWN} are shown" if len(rows) > SHOWN else ""
    found = count(rows)
    counts = ", ".join(f"{found[key]} {word}" for key, word in COUNTS.items())
    view.say(f"{name}: {len(rows)} runs, {counts}{left}")


def _row(row: "ParsedRun") -> list[str]:
    from lamdagent.text import one_line

    trial = row.trial
    what = trial.action.describe() if trial and trial.action else "a model" if trial else "-"
    what += " (failed)" if trial and trial.status == "failed" else ""
    joins = trial.model.name if trial and trial.model and trial.model.location else ""
    return [row.name, one_line(what, 300), _score(trial), joins, "; ".join(row.notes) or row.skipped]


def _score(trial: "Trial | None") -> str:
    """The weighted score; the tasks' own while our base is not scored and has to stand in for one of them."""
    from lamdagent.memory.lineage import format_score

    if trial is None or trial.score:
        return format_score(trial.score if trial else None)
    return ", ".join(f"{name} {format_score(score)}" for name, score in trial.scores.items()) or "-"


def _overview(found: "ForeignRuns", view: "Terminal") -> None:
    from lamdagent.text import one_line

    fits = {one["experiments"][0]: one["mapping"] for one in found.suggested["memory"]["sources"].values()}
    rows = []
    for one in found.experiments:
        count = f"{len(one.records)}{'+' if one.more else ''}"
        rows.append([one_line(one.name, 80), count, "yes" if one.logged else "", fits.get(one.name, "")])
    view.table("Experiments of the store", ("experiment", "runs", "logged models", "mapping that fits"), rows)
    view.say("To seed a search with them, paste into your experiment what is right of this:")
    view.say(_yaml(found.suggested))


def _yaml(value: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=110))


COMMAND = Command("history", HELP, run, flags=("--json",))
