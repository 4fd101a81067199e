"""Runs of the store -> History, read incrementally: the same runs always give the same history."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lamdagent.actions.action import ActionType
from lamdagent.evaluation.task import Task
from lamdagent.memory.from_record import Known, trial_of
from lamdagent.memory.scores import fraction_of
from lamdagent.memory.trial import MOST_LOST, RETRYABLE, History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.objects.resource import Resource
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

Read = tuple[RunRecord, tuple[Model | Dataset | None, ...], Trial]
"""A run, what its parents made, and the trial that these give."""


class Histories:
    """Reads histories of one space; a run that has not changed since the last one keeps its trial."""

    def __init__(
        self,
        types: Sequence[ActionType],
        datasets: Sequence[Dataset],
        tasks: Sequence[Task],
        fraction: float | None = None,
        resources: Sequence[Resource] = (),
    ) -> None:
        """Scores of tasks that have changed since are left out.

        `fraction`: only actions with this share of the data, and on models made with it, are seen; None: all are.
        """
        declared = {d.name: d for d in datasets}
        by_kind = {(r.kind, r.name): r for r in resources}
        self._models: dict[str, Model] = {}
        self._made: dict[str, Dataset] = {}
        self._known = Known({t.name: t for t in types}, declared, by_kind, tasks, self._models, self._made)
        self._fraction = fraction
        self._records: Sequence[RunRecord] = ()
        self._read: dict[str, Read] = {}
        self._unseen: set[str] = set()
        """Runs of other fractions."""
        self._last = History()

    def history(self, records: Sequence[RunRecord], reflection: str = "") -> History:
        """All base and action runs as trials, oldest first, yet none before its parents, whatever their clocks said.

        The same object as the last time when nothing has changed.
        """
        if not _same(records, self._records):
            self._read_again(records)
            self._records = tuple(records)
        trials = tuple(trial for _, _, trial in self._read.values())
        if not _same(trials, self._last.trials) or reflection != self._last.reflection:
            self._last = History(trials, reflection)
        return self._last

    def _read_again(self, records: Sequence[RunRecord]) -> None:
        """Only what is new, where it stands behind everything else and nothing rests on it: the usual case."""
        before = {record.run_id: record for record in self._records}
        news = [record for record in records if before.get(record.run_id) is not record]
        parents = {parent for record in records for parent in record.parents}
        fresh = [record for record in news if record.run_id not in before]
        youngest = max((record.start_ms for record in self._records), default=0)
        simple = len(before) + len(fresh) == len(records) and all(record.start_ms > youngest for record in fresh)
        if not simple or any(record.run_id in parents for record in news):
            known, self._read = self._read, {}
            for found in (self._models, self._made, self._unseen):
                found.clear()
            news = list(_parents_first(records))
        else:
            known = self._read
        for record in news:
            if record.kind in ("base", "action"):
                self._add(record, known.get(record.run_id))

    def _add(self, record: RunRecord, known: Read | None) -> None:
        if not self._sees(record):
            self._unseen.add(record.run_id)
            return
        inputs = tuple(found.get(parent) for found in (self._models, self._made) for parent in record.parents)
        if known is None or known[0] is not record or not _same(known[1], inputs):
            known = (record, inputs, trial_of(record, self._known))
        self._read[record.run_id] = known
        if known[2].model:
            self._models[record.run_id] = known[2].model
        if known[2].dataset:
            self._made[record.run_id] = known[2].dataset

    def _sees(self, record: RunRecord) -> bool:
        if self._fraction is None or record.kind == "base":
            return True
        return fraction_of(record) == self._fraction and not any(parent in self._unseen for parent in record.parents)


def build_history(
    records: Sequence[RunRecord],
    types: Sequence[ActionType],
    datasets: Sequence[Dataset],
    tasks: Sequence[Task],
    fraction: float | None = None,
    resources: Sequence[Resource] = (),
) -> History:
    """One history, see `Histories`."""
    return Histories(types, datasets, tasks, fraction, resources).history(records)


def _same(these: Sequence[Any], those: Sequence[Any]) -> bool:
    return len(these) == len(those) and all(this is that for this, that in zip(these, those, strict=True))


def _parents_first(records: Iterable[RunRecord]) -> Iterator[RunRecord]:
    """Base and action runs, oldest first, but a run that seems older than a parent after it."""
    trials = [r for r in records if r.tags.get(schema.KIND) in ("base", "action")]
    waiting = {r.run_id: r for r in sorted(trials, key=lambda r: (r.start_ms, r.run_id))}
    for first in list(waiting):
        below = [first] if first in waiting else []
        while below:
            run_id = below[-1]
            parent = next((p for p in waiting[run_id].parents if p in waiting and p not in below), None)
            if parent is None:
                yield waiting.pop(below.pop())
            else:
                below.append(parent)


def tried_fingerprints(history: History) -> set[str]:
    """Fingerprints that must not be offered: scored on these tasks, running, or failed for a reason of their own.

    What was scored on other tasks only is offered again: its weights are there, and just the new tasks are measured.
    """
    lost = Counter(t.action.fingerprint for t in history.actions if t.failure == "lost_worker" and t.status == "failed")
    own = {
        t.action.fingerprint
        for t in history.actions
        if not (t.status == "failed" and t.failure in RETRYABLE) and not _measured_otherwise(t)
    }
    return own | {fingerprint for fingerprint, times in lost.items() if times >= MOST_LOST}


def _measured_otherwise(trial: Trial) -> bool:
    """Scored on other tasks only, and its weights are still there."""
    return trial.status == "finished" and trial.score is None and not trial.pruned
