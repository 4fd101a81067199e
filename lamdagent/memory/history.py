"""Runs of the store -> History: the same runs always give the same history."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lamdagent.actions.action import MICRO, PROCESSES, Action, ActionType, Scalar
from lamdagent.evaluation.task import Task, weighted_score
from lamdagent.memory.scores import fraction_of, scores_on, stored_gain
from lamdagent.memory.trial import MOST_LOST, RETRYABLE, History, Status, Trial
from lamdagent.objects.dataset import Dataset, is_made
from lamdagent.objects.kinds import is_kind
from lamdagent.objects.model import Model, Origin
from lamdagent.text import parse_json
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

STATUS: Mapping[str, Status] = {"FINISHED": "finished", "RUNNING": "running", "SCHEDULED": "running"}
FINGERPRINT = re.compile(r"[0-9a-f]{32}")
LONGEST_DESCRIPTION = 300
"""Characters of what a run says of the data that it made."""
Known = tuple[RunRecord, tuple[Model | Dataset | None, ...], Trial]
"""A run, what its parents made, and the trial that these give."""


class Histories:
    """Reads histories of one space; a run that has not changed since the last one keeps its trial."""

    def __init__(
        self,
        types: Sequence[ActionType],
        datasets: Sequence[Dataset],
        tasks: Sequence[Task],
        fraction: float | None = None,
    ) -> None:
        """Scores of tasks that have changed since are left out.

        `fraction`: only actions with this share of the data, and on models made with it, are seen; None: all are.
        """
        self._types = {t.name: t for t in types}
        self._datasets = {d.name: d for d in datasets}
        self._tasks = tasks
        self._fraction = fraction
        self._records: Sequence[RunRecord] = ()
        self._read: dict[str, Known] = {}
        self._models: dict[str, Model] = {}
        self._made: dict[str, Dataset] = {}
        """What each run has made."""
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
            self._models, self._made, self._unseen = {}, {}, set()
            news = list(_parents_first(records))
        else:
            known = self._read
        for record in news:
            if record.kind in ("base", "action"):
                self._add(record, known.get(record.run_id))

    def _add(self, record: RunRecord, known: Known | None) -> None:
        if not self._sees(record):
            self._unseen.add(record.run_id)
            return
        inputs = tuple(found.get(parent) for found in (self._models, self._made) for parent in record.parents)
        if known is None or known[0] is not record or not _same(known[1], inputs):
            known = (record, inputs, self._trial(record))
        self._read[record.run_id] = known
        self._models |= {record.run_id: known[2].model} if known[2].model else {}
        self._made |= {record.run_id: known[2].dataset} if known[2].dataset else {}

    def _sees(self, record: RunRecord) -> bool:
        if self._fraction is None or record.kind == "base":
            return True
        return fraction_of(record) == self._fraction and not any(parent in self._unseen for parent in record.parents)

    def _trial(self, record: RunRecord) -> Trial:
        action = None
        if record.kind == "action":
            action = _action(record, self._models, self._made, self._types, self._datasets)
        return _trial(record, action, self._tasks)


def build_history(
    records: Sequence[RunRecord],
    types: Sequence[ActionType],
    datasets: Sequence[Dataset],
    tasks: Sequence[Task],
    fraction: float | None = None,
) -> History:
    """One history, see `Histories`."""
    return Histories(types, datasets, tasks, fraction).history(records)


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
    lost = Counter(t.action.fingerprint for t in history.failed if t.action and t.failure == "lost_worker")
    own = {
        t.action.fingerprint
        for t in history.actions
        if t.action and not (t.status == "failed" and t.failure in RETRYABLE) and not _measured_otherwise(t)
    }
    return own | {fingerprint for fingerprint, times in lost.items() if times >= MOST_LOST}


def _measured_otherwise(trial: Trial) -> bool:
    """Scored on other tasks only, and its weights are still there."""
    return trial.status == "finished" and trial.score is None and not trial.pruned


def _trial(record: RunRecord, action: Action | None, tasks: Sequence[Task]) -> Trial:
    tags, metrics = record.tags, record.metrics
    status = STATUS.get(record.status, "failed")
    # A driver that was killed while it closed a run may have left the scores of an action that then counts as failed.
    scores = scores_on(record, tasks, schema.TASK_PREFIX) if status == "finished" else {}
    tests = scores_on(record, tasks, schema.TEST_PREFIX)
    return Trial(
        run_id=record.run_id,
        kind="action" if action else "base",
        status=status,
        action=action,
        model=_model(record) if status == "finished" else None,
        scores=scores,
        score=weighted_score(tasks, scores),
        test_scores=tests,
        test_score=weighted_score(tasks, tests),
        gain=stored_gain(record, ""),
        test_gain=stored_gain(record, schema.TEST_PREFIX),
        state=tags.get(schema.STATE, ""),
        state_reason=tags.get(schema.STATE_REASON, ""),
        policy=tags.get(schema.POLICY, ""),
        reason=tags.get(schema.REASON, ""),
        status_reason=tags.get(schema.STATUS_REASON, ""),
        failure=tags.get(schema.FAILURE_KIND, ""),
        parents=record.parents,
        started=record.start_ms,
        seconds=metrics.get(schema.COST_SECONDS, 0.0),
        search_run_id=tags.get(schema.PARENT_RUN, ""),
        name=record.name,
        reused=tags.get(schema.REUSED, ""),
        pruned=bool(tags.get(schema.PRUNED)),
        dataset=_made(record, action) if status == "finished" and action else None,
    )


def _model(record: RunRecord) -> Model:
    tags = record.tags
    fingerprint = tags.get(schema.MODEL_FINGERPRINT) or tags.get(schema.FINGERPRINT, "")
    return Model(
        fingerprint=fingerprint,
        location=tags.get(schema.WEIGHTS) or f"runs:/{record.run_id}/{schema.MODEL_FOLDER}",
        run_id=record.run_id,
        base=tags.get(schema.MODEL_BASE, ""),
        depth=int(tags.get(schema.MODEL_DEPTH, 0)),
        architecture=tags.get(schema.MODEL_ARCHITECTURE, ""),
        vocabulary=int(tags.get(schema.MODEL_VOCABULARY, 0)),
        sha256=tags.get(schema.WEIGHTS_SHA256, ""),
        bytes=int(tags.get(schema.WEIGHTS_BYTES, 0)),
        frame=tags.get(schema.MODEL_FRAME, ""),
        origin=Origin.of(origin) if (origin := parse_json(tags.get(schema.ORIGIN), None)) else None,
    )


def _made(record: RunRecord, action: Action) -> Dataset | None:
    """The rows that the run's action made; None where there are none, or its tag makes no sense."""
    told = parse_json(record.tags.get(schema.DATASET), None)
    if not isinstance(told, dict) or not is_kind(told.get("kind")):
        return None
    fingerprint, home = str(told.get("fingerprint", "")), str(told.get("run_id") or record.run_id)
    if not FINGERPRINT.fullmatch(fingerprint) or not isinstance(told.get("rows"), int):
        return None
    columns = told.get("columns")
    return Dataset(
        name=f"data-{fingerprint[:8]}",
        kind=told["kind"],
        description=str(told.get("description", ""))[:LONGEST_DESCRIPTION],
        fingerprint=fingerprint,
        rows=told["rows"],
        path=f"runs:/{home}/{schema.DATASET_FOLDER}",
        license=" and ".join(sorted({d.license for d in action.datasets if d.license})),
        columns=tuple(map(str, columns)) if isinstance(columns, list) else None,
        run_id=record.run_id,
        overlap=str(told.get("overlap", ""))[:LONGEST_DESCRIPTION],
    )


def _action(
    record: RunRecord,
    models: Mapping[str, Model],
    made: Mapping[str, Dataset],
    types: Mapping[str, ActionType],
    datasets: Mapping[str, Dataset],
) -> Action:
    name = record.tags.get(schema.ACTION, "")
    slots = {slot: tuple(names) for slot, names in parse_json(record.tags.get(schema.SLOTS), {}).items()}
    used = [n for names in slots.values() for n in names if not n.startswith("model-")]
    grid = types[name].grid if name in types else {}
    plain = {"action", "seed", "data_fraction", PROCESSES, *slots}
    from_runs = [n for names in slots.values() for n in names if n.startswith("model-") or is_made(n)]
    told = dict(zip(from_runs, record.parents, strict=False)) if len(from_runs) == len(record.parents) else {}
    data_runs = {name: run_id for name, run_id in told.items() if is_made(name)}
    found = {name: made[run_id] for name, run_id in data_runs.items() if run_id in made}
    parents = [p for n, p in told.items() if n not in data_runs] if data_runs else record.parents
    return Action(
        type=name,
        models=tuple(models.get(p) or Model(fingerprint=p, location="", run_id=p) for p in parents),
        datasets=tuple(
            datasets.get(n) or found.get(n) or Dataset(n, "sft", "", n, 1, "", run_id=data_runs.get(n, ""))
            for n in used
        ),
        hyperparameters={k: _value(v, grid.get(k, ())) for k, v in record.params.items() if k not in plain}
        | ({MICRO: int(rows)} if (rows := record.tags.get(schema.MICRO_BATCH)) else {}),
        fingerprint=record.tags.get(schema.FINGERPRINT, ""),
        slots=slots,
        seed=int(record.params.get("seed", 0)),
        data_fraction=fraction_of(record),
        processes=int(record.params.get(PROCESSES, 1)),
        choices=types[name].choices if name in types else tuple(k for k in record.params if k not in plain),
    )


def _value(text: str, allowed: Sequence[Scalar]) -> Scalar:
    """MLflow keeps params as text: back to the grid's own value, or the plainest reading."""
    for value in allowed:
        if str(value) == text:
            return value
    parsed = parse_json(text, text)
    return parsed if isinstance(parsed, int | float) else text
