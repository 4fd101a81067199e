"""A run of the store -> a trial. Pure: the same record and the same inputs give the same trial."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lamdagent.actions.action import MICRO, PROCESSES, Action, ActionType, Object, Scalar
from lamdagent.evaluation.task import Task, weighted_score
from lamdagent.memory.references import Inputs, recorded_inputs
from lamdagent.memory.scores import fraction_of, scores_on, stored_gain
from lamdagent.memory.trial import Status, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.kinds import is_kind
from lamdagent.objects.model import Model, Origin
from lamdagent.objects.reference import DATASET, ObjectRef
from lamdagent.objects.resource import Resource
from lamdagent.text import parse_json
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

STATUS: Mapping[str, Status] = {"FINISHED": "finished", "RUNNING": "running", "SCHEDULED": "running"}
FINGERPRINT = re.compile(r"[0-9a-f]{32}")
LONGEST_DESCRIPTION = 300
"""Characters of the description of data that an action made."""


@dataclass(frozen=True)
class Known:
    """Objects that the references of a recorded action may lead to."""

    types: Mapping[str, ActionType]
    """Name -> action type."""
    datasets: Mapping[str, Dataset]
    """Name -> dataset that the user declared."""
    resources: Mapping[tuple[str, str], Resource]
    """(kind, name) -> resource."""
    tasks: Sequence[Task]
    models: Mapping[str, Model] = field(default_factory=dict)
    """Run id -> the model that the run made or scored."""
    made: Mapping[str, Dataset] = field(default_factory=dict)
    """Run id -> the dataset that the run made."""


def trial_of(record: RunRecord, known: Known) -> Trial:
    """The trial of a base or action run; scores of tasks that have changed since are left out."""
    action = action_of(record, known) if record.kind == "action" else None
    tags, metrics = record.tags, record.metrics
    status = STATUS.get(record.status, "failed")
    # A driver that was killed while it closed a run may have left the scores of an action that then counts as failed.
    scores = scores_on(record, known.tasks, schema.TASK_PREFIX) if status == "finished" else {}
    tests = scores_on(record, known.tasks, schema.TEST_PREFIX)
    return Trial(
        run_id=record.run_id,
        kind="action" if action else "base",
        status=status,
        action=action,
        model=_model(record) if status == "finished" else None,
        scores=scores,
        score=weighted_score(known.tasks, scores),
        test_scores=tests,
        test_score=weighted_score(known.tasks, tests),
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


def action_of(record: RunRecord, known: Known) -> Action:
    """The action of a run, with those of its inputs that are known."""
    name = record.tags.get(schema.ACTION, "")
    inputs = {slot: tuple(_completed(ref, known) for ref in refs) for slot, refs in recorded_inputs(record).items()}
    action_type = known.types.get(name)
    grid = action_type.grid if action_type else {}
    plain = {"action", "seed", "data_fraction", PROCESSES, *inputs}
    refs = [ref for inside in inputs.values() for ref in inside]
    objects = [_object(ref, known) for ref in refs]
    values = {k: _value(v, grid.get(k, ())) for k, v in record.params.items() if k not in plain}
    chosen = action_type.choices if action_type else tuple(values)
    return Action(
        type=name,
        models=tuple(
            known.models.get(p) or Model(fingerprint=p, location="", run_id=p) for p in _model_runs(record, inputs)
        ),
        datasets=tuple(o for o in objects if isinstance(o, Dataset)),
        resources=tuple(o for o in objects if isinstance(o, Resource)),
        hyperparameters=values | ({MICRO: int(rows)} if (rows := record.tags.get(schema.MICRO_BATCH)) else {}),
        fingerprint=record.tags.get(schema.FINGERPRINT, ""),
        inputs=inputs,
        seed=int(record.params.get("seed", 0)),
        data_fraction=fraction_of(record),
        processes=int(record.params.get(PROCESSES, 1)),
        choices=tuple(key for key in chosen if key in values),  # a process may die between a run and its params
    )


def _object(ref: ObjectRef, known: Known) -> Object | None:
    """The object that the reference leads to; None if it is gone."""
    if ref.is_model:
        return known.models.get(ref.run_id)
    if ref.kind == DATASET:
        return known.made.get(ref.run_id) or known.datasets.get(ref.name)
    return known.resources.get((ref.kind, ref.name))


def _completed(ref: ObjectRef, known: Known) -> ObjectRef:
    """The reference with the fingerprint of what it leads to, where the run does not say it."""
    found = None if ref.fingerprint else _object(ref, known)
    return replace(ref, fingerprint=found.fingerprint) if found else ref


def _model_runs(record: RunRecord, inputs: Inputs) -> Sequence[str]:
    """The runs of the input models in slot order; all parents where it is not known which of them are models'."""
    models = [ref.run_id for inside in inputs.values() for ref in inside if ref.is_model]
    return models if models and all(models) else record.parents


def _value(text: str, allowed: Sequence[Scalar]) -> Scalar:
    """MLflow keeps params as text: back to the grid's own value, or the plainest reading."""
    for value in allowed:
        if str(value) == text:
            return value
    parsed = parse_json(text, text)
    return parsed if isinstance(parsed, int | float) else text
