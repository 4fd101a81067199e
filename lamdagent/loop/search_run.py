"""The search run: opened or gone on with, kept alive and up to date while the search runs, closed."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lamdagent.loop.ledger import Spent
from lamdagent.loop.report_job import ReportJob
from lamdagent.memory.trial import RETRYABLE, History
from lamdagent.planning.plan import Plan
from lamdagent.report.document import scales
from lamdagent.scaling.replay_plan import Replay
from lamdagent.text import json_text
from lamdagent.tracking import schema
from lamdagent.tracking.reading import artifact_folder
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.searches import (
    close_orphans,
    close_own,
    end_search,
    find_search,
    reopen_search,
    start_search,
    trials_of,
    was_cut_off,
)
from lamdagent.tracking.store import RunStore

CATCH_UP_S = 600.0
"""Seconds that a search which starts waits until the store has what earlier ones could not write."""


class SearchRun:
    """The search run of one search, and what has been spent under it."""

    def __init__(self, store: RunStore, plan: Plan, config_yaml: str, replay: Replay | None) -> None:
        """Nothing is written until `open`. `replay`: the pipelines that the search makes again."""
        self._store = store
        self._plan = plan
        self._config_yaml = config_yaml
        self._replay = replay
        self._spent = Spent()
        self._deferred: list[Callable[[], None]] = []
        self.run_id = ""
        """Of the search run; empty until `open`."""
        self.reflection = ""
        """The LLM's latest memory update, of whatever search."""
        self.report = ReportJob(store)

    def open(self, search_id: str) -> Spent:
        """Start the search run, or go on with one that was cut off; what it has spent already.

        What dead processes of this host left open is closed first. A finished search of the same id stays as it is and
        a new run goes on from it.
        """
        # Earlier writes count too. When the store is away for longer, the search begins all the same.
        self._store.flush(CATCH_UP_S)
        reflections = [r.tags.get(schema.REFLECTION, "") for r in self.records() if r.kind == "search"]
        self.reflection = next(filter(None, reversed(reflections)), "")
        last = find_search(self._store, search_id)
        if last is not None and was_cut_off(self._store, last):
            return self._resume(last)
        config, replay = self._plan.config, self._replay
        name = replay.title if replay else f"search {config.agent.kind} seed {config.search.seed}"
        tasks = [task.name for task in self._plan.tasks]
        self.run_id = start_search(
            self._store,
            search_id,
            name,
            _params(self._plan, replay),
            self._config_yaml,
            _description(self._plan),
            tasks,
        )
        findings = self._plan.findings
        texts = {schema.LEAKS: json_text({"rows": findings.leaks})} if findings.overlap else {}
        self._store.update(self.run_id, tags=_tags(self._plan, self._replay), texts=texts)
        return Spent()

    def _resume(self, last: RunRecord) -> Spent:
        self.run_id = last.run_id
        # Whatever is open under it belongs to the dead, even where an outage has kept us from closing it.
        trials = len([r for r in trials_of(self._store, last.run_id) if r.status != "RUNNING" and _is_trial(r)])
        reopen_search(self._store, last.run_id)
        self._store.update(last.run_id, tags=_tags(self._plan, self._replay))
        usd, gpu = (last.metrics.get(key, 0.0) for key in (schema.COST_USD, schema.COST_GPU_SECONDS))
        self._spent = Spent(0, usd, gpu)
        return Spent(trials, usd, gpu)

    def records(self) -> list[RunRecord]:
        """The working set of the experiment; what dead processes left open is closed before."""
        records = self._store.runs()
        orphans = close_orphans(self._store)
        for run_id in orphans:
            discard_staging(self._store, run_id)
        return self._store.runs() if orphans else records

    def record_spent(self, spent: Spent) -> None:
        """Write what the search has cost so far, from which a restart goes on; nothing where that is no news."""
        costs = replace(spent, trials=0)
        if self.run_id and costs != self._spent:
            self._spent = costs
            now = {schema.COST_USD: costs.usd, schema.COST_GPU_SECONDS: costs.gpu_seconds}
            self._store.update(self.run_id, metrics=now)

    def record_rung(self, plan: Plan) -> None:
        """Write that the search compares the runs of `plan` from now on, on the next rung of its ladder."""
        self._store.update(self.run_id, tags={schema.FRACTION: fraction_tag(plan)})

    def record_progress(self, history: History, trials: int) -> None:
        """Write the best score so far, by number of trials, while the next action runs: MLflow draws the curve."""
        if history.scored and history.scored[0].score:
            best = {schema.SCORE: history.scored[0].score.value}
            self.defer(partial(self._store.update, self.run_id, metrics=best, step=trials))
        self.report.mark_stale()

    def record_reflection(self, reflection: str, traces: Sequence[str], run_id: str) -> None:
        """Write the LLM's memory update; its calls are shown on the run that it came after."""
        if traces:
            self._store.update(run_id, traces=traces)
        if reflection != self.reflection:
            self.reflection = reflection
            self._store.update(self.run_id, tags={schema.REFLECTION: reflection})

    def heartbeat(self) -> None:
        """Tell other hosts now and then that this search runs. Called while we wait.

        That is the time for what can be written later, and for a report.
        """
        self.write_deferred()
        self.report.refresh_if_due(self.run_id)
        self._store.heartbeat(self.run_id)

    def defer(self, write: Callable[[], None]) -> None:
        """Do a write that nobody waits for while the next action runs."""
        self._deferred.append(write)

    def write_deferred(self) -> None:
        """Do the deferred writes now."""
        deferred, self._deferred = self._deferred, []
        for write in deferred:
            write()

    def close(self, status: str, reason: str) -> None:
        """End the search run as FINISHED, FAILED or KILLED, and as interrupted its runs that this process has open."""
        if self.run_id:
            self.write_deferred()
            for run_id in close_own(self._store, self.run_id, reason):
                discard_staging(self._store, run_id)
            end_search(self._store, self.run_id, status, reason)
            self.report.refresh(self.run_id)


def staging_folder(store: RunStore, run_id: str) -> Path | None:
    """A folder beside the run's artifacts, on their file system; None when they are on a server."""
    artifacts = artifact_folder(store, run_id)
    return artifacts.parent / "staging" if artifacts else None


def discard_staging(store: RunStore, run_id: str) -> None:
    """Delete what the worker of a failed run has left: half-written weights are gigabytes."""
    staged = staging_folder(store, run_id)
    if staged is not None:
        shutil.rmtree(staged, ignore_errors=True)


def fraction_tag(plan: Plan) -> str:
    """The tag `schema.FRACTION`; empty where the search compares all fractions."""
    return "" if plan.config.scope is None else str(plan.config.scope)


def _tags(plan: Plan, replay: Replay | None) -> dict[str, str]:
    """Tags by which the search run describes the plan; the same when it is resumed."""
    tags = {schema.SCALES: scales(plan.tasks), schema.FRACTION: fraction_tag(plan)}
    tags |= {schema.OVERLAP: plan.findings.overlap} if plan.findings.overlap else {}
    if replay:
        tags[schema.REPLAYS] = json.dumps([trial.run_id for trial in replay.trials])
    return tags


def _params(plan: Plan, replay: Replay | None) -> dict[str, Any]:
    config = plan.config
    agent = config.agent.kind if not config.agent.model else f"{config.agent.kind} {config.agent.model}"
    return {
        "agent": "replay" if replay else agent,
        "seed": config.search.seed,
        "data_fraction": config.data_fraction,
        "models": ", ".join(config.models),
        "datasets": ", ".join(config.datasets),
        **({"resources": ", ".join(config.resources)} if config.resources else {}),
        "actions": ", ".join(config.actions),
        "tasks": ", ".join(f"{t.name} x {t.weight:g}" for t in plan.tasks),
    }


def _description(plan: Plan) -> str:
    tasks = ", ".join(f"{t.name} ({t.weight:g})" for t in plan.tasks)
    return (
        f"A search for the best post-training pipeline on {tasks}. Its nested runs are the trials: sort by `score` "
        "for the leaderboard. Each names its parents; `score` here is the best so far, by number of trials."
    )


def _is_trial(record: RunRecord) -> bool:
    """Whether a run is a trial that was spent: an interrupted one was not, nor one that nobody has chosen."""
    retried = record.status == "FAILED" and record.tags.get(schema.FAILURE_KIND) in RETRYABLE
    return record.kind == "action" and not retried and not record.tags.get(schema.REPLAY_OF)
