"""Runs of others -> trials, by a mapping. Pure: nothing is fetched, and what is not understood says why.

Everything in such a run is data from strangers: text is cleaned and cut here already, numbers are checked.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

from lamdagent.actions.action import Action, ActionType, Scalar
from lamdagent.config import SourceConfig
from lamdagent.evaluation.task import Score, weighted_score
from lamdagent.memory.external.context import ParsedRun, SearchContext, Unparsed, is_field_path, value_at
from lamdagent.memory.external.own_runs import parse_own_runs
from lamdagent.memory.external.user_mapping import translation
from lamdagent.memory.external.values import UNSURE, UNTOLD, normalized, product, trainer_of
from lamdagent.memory.trial import Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.objects.reference import ObjectRef
from lamdagent.text import one_line, quoted
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord, Weights


def parse_runs(
    name: str, source: SourceConfig, records: Iterable[RunRecord], ours: SearchContext, weights: Mapping[str, Weights]
) -> list[ParsedRun]:
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
        return parse_own_runs(name, ordered, ours, weights)
    reader = _Parser(name, source, ours, weights)
    return [reader.read(record) for record in ordered]


class _Parser:
    """Reads the runs of one source, remembering the models of earlier ones."""

    def __init__(self, name: str, source: SourceConfig, ours: SearchContext, weights: Mapping[str, Weights]) -> None:
        self._path = f"memory.sources.{name}"
        self._name = name
        self._source = source
        self._ours = ours
        self._weights = weights
        self._types = {t.name: t for t in ours.types}
        self._datasets = {d.name: d for d in ours.datasets}
        self._made: dict[str, Model] = {}
        self._translate = translation(source.mapping)

    def read(self, record: RunRecord) -> ParsedRun:
        notes: list[str] = []
        name = one_line(record.name, 80)
        told = self._translate(record)
        if isinstance(told, str):
            return ParsedRun(record.run_id, name, skipped=told)
        record = told
        try:
            trial = self._trial(record, notes)
        except Unparsed as fault:
            return ParsedRun(record.run_id, name, skipped=str(fault))
        if trial.model:
            names = (record.run_id, f"runs:/{record.run_id}", trial.model.location, *self._folders(record))
            self._made.update((name, trial.model) for name in names if name)
        return ParsedRun(record.run_id, name, trial, tuple(notes))

    def _trial(self, record: RunRecord, notes: list[str]) -> Trial:
        failed = _failed(record)
        weights = self._weights.get(record.run_id, Weights())
        action_type = self._type(record, weights, notes)
        inputs = self._inputs(record, action_type, notes)
        if action_type is None and (failed or not weights.location):
            raise Unparsed(f"what was done is not known, and {weights.problem or 'it has no weights that are at hand'}")
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
        word = value_at(record, given) if is_field_path(given) else given
        if not word:
            raise Unparsed(f"it has no {given}, which says what was done")
        return self._known_type((word,), word)

    def _trained(self, record: RunRecord, weights: Weights, notes: list[str]) -> ActionType:
        method = trainer_of(record.params)
        if not method:
            raise Unparsed("it has no trainer's params; an evaluation after the training leaves such a run")
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
        raise Unparsed(f"its action {quoted(said, 60)} is no action type of this search; {hint}")

    def _inputs(self, record: RunRecord, action_type: ActionType | None, notes: list[str]) -> tuple[Model, ...]:
        given = value_at(record, self._source.model) if self._source.model else ""
        names = [name.strip() for name in given.split(",") if name.strip()]
        if not names:
            if not self._ours.models:
                raise Unparsed("it names no input model, and this search has none of its own")
            first = next(iter(self._ours.models))
            notes.append(f"names no input model: taken to start from {first}")
            return (self._ours.models[first],)
        inputs = tuple(self._input(name) for name in names)
        slots = [s for s in action_type.slots if s.holds_models] if action_type else []
        if slots and not slots[0].minimum <= len(inputs) <= slots[0].maximum:
            raise Unparsed(f"it starts from {len(inputs)} models, which is not what {action_type.name} takes")  # type: ignore[union-attr]
        return inputs

    def _input(self, name: str) -> Model:
        said = self._source.model_names.get(name, name)
        for key in (said, said.rstrip("/"), said.rstrip("/").rpartition("/")[2]):
            found = self._made.get(key) or self._ours.models.get(key)
            if found:
                return found
        hint = f"if it is one of ours, say so in {self._path}.model_names"
        raise Unparsed(f"its input model {quoted(name, 80)} is neither one of ours nor made by an earlier run; {hint}")

    def _folders(self, record: RunRecord) -> list[str]:
        """The folders that the run says it wrote, as a later run may name them."""
        said = [value_at(record, path) for path in self._source.weights if is_field_path(path)]
        return [folder.rstrip("/") for folder in said if folder]

    def _action(
        self, record: RunRecord, action_type: ActionType, inputs: tuple[Model, ...], digest: str, notes: list[str]
    ) -> Action:
        refs: dict[str, tuple[ObjectRef, ...]] = {}
        data = self._data(record, {slot.kind for slot in action_type.slots}, notes)
        for slot in action_type.slots:
            if slot.holds_models and not slot.distinct_from:  # a trainer's params name no teacher
                refs[slot.name] = tuple(m.ref for m in inputs)
            elif given := tuple(d.ref for d in data if d.kind == slot.kind):
                refs[slot.name] = given
        told = self._values(record, action_type, notes)
        return Action(
            type=action_type.name,
            models=inputs,
            datasets=data,
            hyperparameters={key: told.get(key, v[len(v) // 2]) for key, v in action_type.grid.items()},
            fingerprint=digest,
            inputs=refs,
            choices=tuple(key for key in action_type.choices if key in told),
        )

    def _data(self, record: RunRecord, kinds: set[str], notes: list[str]) -> tuple[Dataset, ...]:
        given = self._source.dataset
        said = value_at(record, given) if is_field_path(given) else given
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
            texts = [value_at(record, part.strip()) for part in path.split("*")]
            if all(texts):
                value = product(texts, allowed[0])
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
        Unparsed: it has not ended, was stopped by a person, or is of this package.
    """
    if schema.SCHEMA_TAG in record.tags:
        raise Unparsed("a run of this package: read its experiment with mapping: lamdagent")
    if record.status in ("RUNNING", "SCHEDULED"):
        raise Unparsed("it has not ended")
    if record.status == "KILLED":
        raise Unparsed("somebody stopped it, which says nothing")
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
