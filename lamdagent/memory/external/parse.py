"""Runs of others -> trials, by a mapping. Pure: nothing is fetched, and what is not understood says why.

Everything in such a run is data from strangers: text is cleaned and cut here already, numbers are checked.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamdagent.actions.action import Action, ActionType, Scalar
from lamdagent.actions.methods import METHODS
from lamdagent.config import ForeignScoreConfig, ModelConfig, SourceConfig
from lamdagent.errors import LamdagentError
from lamdagent.evaluation.task import Score, Task, weighted_score
from lamdagent.memory.external.user_mapping import translation
from lamdagent.memory.history import build_history
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.text import one_line, quoted
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord, Weights

TRAINERS: Mapping[str, str] = {  # from the most special to the plainest; the params are TRL's own
    "center_rewards_coefficient": "reward",
    **{sign: method.name for method in METHODS.values() for sign in method.signs},
    "per_device_train_batch_size": "trainer",
}
"""A param that gives a trainer away -> our word for what it does; `trainer`: the Hugging Face Trainer, of any loss."""
UNSURE = 0.05
"""Standard error, as a share of the range, of a score that comes without one."""
UNTOLD = 0.3
"""The same for a task that they did not measure: the base's score stands in for it."""


@dataclass(frozen=True)
class Ours:
    """What a foreign run may be about."""

    types: tuple[ActionType, ...]
    datasets: tuple[Dataset, ...]
    tasks: tuple[Task, ...]
    models: Mapping[str, Model]
    """By every name that it goes by; the first one is what a run that names no input model is taken to start from."""
    base_scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    """Task -> score of our base, which stands in where they have not measured a task; empty when not known yet."""


@dataclass(frozen=True)
class Reading:
    """What became of one run: a trial with notes, or why there is none."""

    run_id: str
    name: str
    trial: Trial | None = None
    notes: tuple[str, ...] = ()
    """What was assumed, and what could not be used."""
    skipped: str = ""
    """Why there is no trial."""


class _Unclear(LamdagentError):
    """The run cannot be a trial; the message says why."""


def understand(
    name: str, source: SourceConfig, records: Iterable[RunRecord], ours: Ours, weights: Mapping[str, Weights]
) -> list[Reading]:
    """Every run of the source `name`, oldest first: a run may start from the model of an earlier one.

    Args:
        name: the source's name under `memory.sources`.
        source: how its runs are to be read.
        records: its runs, in any order.
        ours: what they may be about.
        weights: run id -> what was found of its weights; runs that are not in it have none that are known.
    """
    ordered = sorted(records, key=lambda r: (r.start_ms, r.run_id))
    if source.mapping == "lamdagent":
        return _own_searches(name, ordered, ours, weights)
    reader = _Reader(name, source, ours, weights)
    return [reader.read(record) for record in ordered]


def known_names(given: Mapping[str, ModelConfig], models: Sequence[Model]) -> dict[str, Model]:
    """The initial models by all names that others may know them by; `models` are those of `given`, in its order."""
    pairs = list(zip(given.items(), models, strict=False))
    names = {name: model for (name, _), model in pairs}
    for (_, settings), model in pairs:
        source = settings.source.rstrip("/")
        for key in (source, source.rpartition("/")[2], model.name, model.fingerprint, *filter(None, (model.run_id,))):
            names.setdefault(key, model)
    return names


def seeded(own: History, foreign: Sequence[Trial]) -> History:
    """`own` with the trials of others, and our actions on their models bound to these models."""
    models = {t.run_id: t.model for t in foreign if t.model}

    def bound(trial: Trial) -> Trial:
        if trial.action is None or models.keys().isdisjoint(trial.parents):
            return trial
        inputs = tuple(models.get(m.run_id or "", m) for m in trial.action.models)
        return dataclasses.replace(trial, action=dataclasses.replace(trial.action, models=inputs))

    return dataclasses.replace(own, trials=tuple(map(bound, own.trials)), foreign=tuple(foreign))


def place(record: RunRecord, path: str) -> str:
    """What stands at `params.<name>` or `tags.<name>`; empty when there is nothing."""
    group, _, key = path.partition(".")
    return str({"params": record.params, "tags": record.tags}.get(group, {}).get(key, ""))


def is_place(path: str) -> bool:
    """Whether `path` is a place rather than a name of ours."""
    return path.startswith(("params.", "tags."))


def trainer_of(params: Mapping[str, str]) -> str:
    """What the trainer behind the params does, in TRAINERS' words; empty when they are no trainer's."""
    return next((word for key, word in TRAINERS.items() if key in params), "")


def normalized(value: float, given: ForeignScoreConfig, task: Task) -> float:
    """Their value on the task's own scale: range onto range, turned round where the directions differ, cut at its ends.

    >>> normalized(80.0, ForeignScoreConfig("acc", 0.0, 100.0), Task("t", "t", "m", low=0.0, high=1.0))
    0.8
    """
    share = min(1.0, max(0.0, (value - given.low) / (given.high - given.low)))
    share = share if given.higher_is_better == task.higher_is_better else 1.0 - share
    return task.low + share * (task.high - task.low)


class _Reader:
    """Reads the runs of one source, remembering the models of earlier ones."""

    def __init__(self, name: str, source: SourceConfig, ours: Ours, weights: Mapping[str, Weights]) -> None:
        self._path = f"memory.sources.{name}"
        self._name = name
        self._source = source
        self._ours = ours
        self._weights = weights
        self._types = {t.name: t for t in ours.types}
        self._datasets = {d.name: d for d in ours.datasets}
        self._made: dict[str, Model] = {}
        self._translate = translation(source.mapping)

    def read(self, record: RunRecord) -> Reading:
        notes: list[str] = []
        name = one_line(record.name, 80)
        told = self._translate(record)
        if isinstance(told, str):
            return Reading(record.run_id, name, skipped=told)
        record = told
        try:
            trial = self._trial(record, notes)
        except _Unclear as fault:
            return Reading(record.run_id, name, skipped=str(fault))
        if trial.model:
            names = (record.run_id, f"runs:/{record.run_id}", trial.model.location, *self._folders(record))
            self._made.update((name, trial.model) for name in names if name)
        return Reading(record.run_id, name, trial, tuple(notes))

    def _trial(self, record: RunRecord, notes: list[str]) -> Trial:
        failed = _failed(record)
        weights = self._weights.get(record.run_id, Weights())
        action_type = self._type(record, weights, notes)
        inputs = self._inputs(record, action_type, notes)
        if action_type is None and (failed or not weights.location):
            raise _Unclear(f"what was done is not known, and {weights.problem or 'it has no weights that are at hand'}")
        digest = hashlib.sha256(f"foreign:{record.run_id}".encode()).hexdigest()[:32]
        action = self._action(record, action_type, inputs, digest, notes) if action_type else None
        if weights.problem and not failed:
            notes.append(f"the model cannot join the pool: {weights.problem}")
        scores = {} if failed else self._scores(record, notes)
        return Trial(
            run_id=record.run_id,
            kind="action" if action else "base",
            status="failed" if failed else "finished",
            action=action,
            model=None if failed else _model(digest, record, weights, inputs),
            scores=scores,
            score=self._weighted(scores, notes),
            status_reason="it failed; MLflow does not say why" if failed else "",
            failure="error" if failed else "",
            parents=tuple(m.run_id for m in inputs if m.run_id),
            started=record.start_ms,
            seconds=max(0, (record.end_ms or record.start_ms) - record.start_ms) / 1000,
            name=one_line(record.name, 80),
            source=self._name,
        )

    def _type(self, record: RunRecord, weights: Weights, notes: list[str]) -> ActionType | None:
        given = self._source.action
        if not given:
            return self._trained(record, weights, notes) if self._source.mapping == "trl" else None
        word = place(record, given) if is_place(given) else given
        if not word:
            raise _Unclear(f"it has no {given}, which says what was done")
        return self._known_type((word,), word)

    def _trained(self, record: RunRecord, weights: Weights, notes: list[str]) -> ActionType:
        method = trainer_of(record.params)
        if not method:
            raise _Unclear("it has no trainer's params; an evaluation after the training leaves such a run")
        seen = weights.adapter or bool(weights.location)
        kind = "lora" if weights.adapter else "full"
        words = (f"{method}_{kind}", method, *self._relatives(method, seen))
        found = self._known_type(words, words[0] if seen else method)
        if not seen and any(name.startswith(f"{method}_") and name != found.name for name in self._types):
            notes.append(f"nothing says whether it trained an adapter: taken as {found.name}")
        return found

    def _relatives(self, method: str, seen: bool) -> list[str]:
        """Types of ours of the same method, to fall back on where the weights tell nothing."""
        return [] if seen else [name for name in self._types if name.startswith(f"{method}_")]

    def _known_type(self, words: Sequence[str], said: str) -> ActionType:
        for word in words:
            name = self._source.actions.get(word, word)
            if name in self._types:
                return self._types[name]
        known = ", ".join(self._types) or "none"
        hint = f"if it is one of them ({known}), say so in {self._path}.actions"
        raise _Unclear(f"its action {quoted(said, 60)} is no action type of this search; {hint}")

    def _inputs(self, record: RunRecord, action_type: ActionType | None, notes: list[str]) -> tuple[Model, ...]:
        given = place(record, self._source.model) if self._source.model else ""
        names = [name.strip() for name in given.split(",") if name.strip()]
        if not names:
            if not self._ours.models:
                raise _Unclear("it names no input model, and this search has none of its own")
            first = next(iter(self._ours.models))
            notes.append(f"names no input model: taken to start from {first}")
            return (self._ours.models[first],)
        inputs = tuple(self._input(name) for name in names)
        slots = [s for s in action_type.slots if s.kind in ("model", "models")] if action_type else []
        if slots and not slots[0].minimum <= len(inputs) <= slots[0].maximum:
            raise _Unclear(f"it starts from {len(inputs)} models, which is not what {action_type.name} takes")  # type: ignore[union-attr]
        return inputs

    def _input(self, name: str) -> Model:
        said = self._source.model_names.get(name, name)
        for key in (said, said.rstrip("/"), said.rstrip("/").rpartition("/")[2]):
            found = self._made.get(key) or self._ours.models.get(key)
            if found:
                return found
        hint = f"if it is one of ours, say so in {self._path}.model_names"
        raise _Unclear(f"its input model {quoted(name, 80)} is neither one of ours nor made by an earlier run; {hint}")

    def _folders(self, record: RunRecord) -> list[str]:
        """The folders that the run says it wrote, as a later run may name them."""
        said = [place(record, path) for path in self._source.weights if is_place(path)]
        return [folder.rstrip("/") for folder in said if folder]

    def _action(
        self, record: RunRecord, action_type: ActionType, inputs: tuple[Model, ...], digest: str, notes: list[str]
    ) -> Action:
        slots: dict[str, tuple[str, ...]] = {}
        data = self._data(record, {slot.kind for slot in action_type.slots}, notes)
        for slot in action_type.slots:
            if slot.kind in ("model", "models") and not slot.unlike:  # a trainer's params name no teacher
                slots.setdefault(slot.name, tuple(m.name for m in inputs))
            elif names := tuple(d.name for d in data if d.kind == slot.kind):
                slots[slot.name] = names
        told = self._values(record, action_type, notes)
        return Action(
            type=action_type.name,
            models=inputs,
            datasets=data,
            hyperparameters={key: told.get(key, v[len(v) // 2]) for key, v in action_type.grid.items()},
            fingerprint=digest,
            slots=slots,
            choices=tuple(key for key in action_type.choices if key in told),
        )

    def _data(self, record: RunRecord, kinds: set[str], notes: list[str]) -> tuple[Dataset, ...]:
        given = self._source.dataset
        said = place(record, given) if is_place(given) else given
        found = []
        for name in (part.strip() for part in said.split(",") if part.strip()):
            dataset = self._datasets.get(self._source.dataset_names.get(name, name))
            if dataset is None:
                notes.append(f"its dataset {quoted(name, 60)} is none of ours; see {self._path}.dataset_names")
            elif dataset.kind in kinds:
                found.append(dataset)
        return tuple(found)

    def _values(self, record: RunRecord, action_type: ActionType, notes: list[str]) -> dict[str, Scalar]:
        values: dict[str, Scalar] = {}
        for key, allowed in action_type.grid.items():
            path = self._source.hyperparameters.get(key, f"params.{key}")
            texts = [place(record, part.strip()) for part in path.split("*")]
            if all(texts):
                value = _product(texts, allowed[0])
                if value is None:
                    notes.append(f"its {key} {quoted(' * '.join(texts), 40)} is of no use")
                else:
                    values[key] = value
        return values

    def _scores(self, record: RunRecord, notes: list[str]) -> dict[str, Score]:
        scores = {}
        for task in self._ours.tasks:
            given = self._source.scores.get(task.name)
            value = record.metrics.get(given.metric) if given else None
            if given is None or value is None:
                continue
            if not math.isfinite(value):
                notes.append(f"{one_line(given.metric, 60)} is no number")
                continue
            if not given.low <= value <= given.high:
                notes.append(f"{one_line(given.metric, 60)} = {value:g} is outside {given.low:g} to {given.high:g}")
            factor = (task.high - task.low) / (given.high - given.low)
            error = record.metrics.get(given.stderr or "", math.nan)
            error = error * factor if math.isfinite(error) and error > 0 else UNSURE * (task.high - task.low)
            scores[task.name] = Score(normalized(value, given, task), error)
        return scores

    def _weighted(self, scores: Mapping[str, Score], notes: list[str]) -> Score | None:
        """The weighted score; a task that they did not measure counts as the base's, with a large error."""
        missing = [t for t in self._ours.tasks if t.weight > 0 and t.name not in scores]
        if not scores or len(missing) == len([t for t in self._ours.tasks if t.weight > 0]):
            return None
        if missing:
            notes.append(f"not measured, taken as the base's: {', '.join(t.name for t in missing)}")
        base = self._ours.base_scores
        stand_ins = {t.name: Score(base[t.name].value, UNTOLD * (t.high - t.low)) for t in missing if t.name in base}
        return weighted_score(self._ours.tasks, {**stand_ins, **scores})


def _failed(record: RunRecord) -> bool:
    """Whether the run is a failure to learn from.

    Raises:
        _Unclear: it has not ended, was stopped by a person, or is of this package.
    """
    if schema.SCHEMA_TAG in record.tags:
        raise _Unclear("a run of this package: read its experiment with mapping: lamdagent")
    if record.status in ("RUNNING", "SCHEDULED"):
        raise _Unclear("it has not ended")
    if record.status == "KILLED":
        raise _Unclear("somebody stopped it, which says nothing")
    return record.status == "FAILED"


def _model(digest: str, record: RunRecord, weights: Weights, inputs: Sequence[Model]) -> Model:
    bases = {m.base for m in inputs}
    return Model(
        fingerprint=digest,
        location=weights.location,
        run_id=record.run_id,
        base=inputs[0].base if len(bases) == 1 else "",
        depth=1 + max(m.depth for m in inputs),
        architecture=weights.architecture or inputs[0].architecture,
        vocabulary=weights.vocabulary or inputs[0].vocabulary,
    )


def _product(texts: Sequence[str], like: Scalar) -> Scalar | None:
    """The value of `texts` in the type of `like`, multiplied if there are several; None when it makes no sense."""
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(texts[0].lower())
    if isinstance(like, str):
        return one_line(texts[0].strip("[]'\" "), 60)  # Python's list of one, as TRL logs it
    try:
        value = math.prod(float(text) for text in texts)
    except ValueError:
        return None
    if not (math.isfinite(value) and value >= 0):  # -1 is the trainer's "not set"
        return None
    return int(value) if isinstance(like, int) and value == int(value) else value


def _own_searches(name: str, records: Sequence[RunRecord], ours: Ours, weights: Mapping[str, Weights]) -> list[Reading]:
    """Runs of this package from another experiment; scores of tasks with other items or settings are left out."""
    trials = build_history([r for r in records if _readable(r)], ours.types, ours.datasets, ours.tasks).by_run
    readings = []
    for record in records:
        label, trial = one_line(record.name, 80), trials.get(record.run_id)
        if trial is None or trial.status == "running":
            readings.append(Reading(record.run_id, label, skipped=_no_trial(record)))
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
        readings.append(Reading(record.run_id, label, trial, tuple(notes)))
    return readings


def _readable(record: RunRecord) -> bool:
    return record.tags.get(schema.SCHEMA_TAG) == schema.SCHEMA


def _no_trial(record: RunRecord) -> str:
    if not _readable(record):
        return "no run of this package, or one of another version"
    return "the search itself" if record.kind == "search" else "it has not ended"
