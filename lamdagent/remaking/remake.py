"""Deleted weights made again from the store alone, and put back once proven."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from lamdagent.actions.action import ActionType, keyword_arguments, share_of
from lamdagent.config import Config, MemoryConfig, read
from lamdagent.errors import NotRebuilt, UserError
from lamdagent.evaluation.task import Score
from lamdagent.execution.executor import Executor, Failed, Job, Update
from lamdagent.loop.job_factory import EVALUATE_S, PREPARE_S
from lamdagent.loop.run_content import tasks_tag
from lamdagent.memory.references import recorded_inputs
from lamdagent.objects.checksum import WeightsHash
from lamdagent.objects.object_kinds import load_resource, section_of
from lamdagent.objects.reference import DATASET, ObjectRef
from lamdagent.objects.rows import load_dataset
from lamdagent.planning.plan import make_outline
from lamdagent.remaking.proof import difference, items_of, read_items, within_noise
from lamdagent.remaking.rebuilt import Rebuilt
from lamdagent.tracking import schema
from lamdagent.tracking.datasets import made_rows
from lamdagent.tracking.reading import read_run, read_text
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.store import RunStore
from lamdagent.tracking.weights import put_back
from lamdagent.worker.make import Outcome

Step = Mapping[str, Any]
"""One step of a recipe, see `pipeline.step`."""
Place = tuple[str, str]
"""Folder of a model, and the checksum of its weights where one was kept."""


@dataclass(frozen=True)
class Made:
    """A model that was made again."""

    folder: Path
    hashed: WeightsHash


class Rebuilder:
    """Makes models again in a folder of its own, each once, however many others start from it."""

    def __init__(self, store: RunStore, executor: Executor, work: Path, say: Callable[[str], None]) -> None:
        """`work` is where a rename can publish from, if that is a folder of this machine."""
        self._store = store
        self._executor = executor
        self._work = work
        self._say = say
        self._made: dict[str, Made] = {}

    def put_back(self, record: RunRecord) -> Rebuilt:
        """The weights of the run made again, proven and published.

        Raises:
            UserError: something that the recipe needs is gone or has changed.
            NotRebuilt: nothing was published.
        """
        made = self._make(record)
        equal = made.hashed.sha256 == record.tags.get(schema.WEIGHTS_SHA256)
        proof = "the same weights, by checksum" if equal else self._compared(record, made)
        tags = {
            schema.WEIGHTS_SHA256: made.hashed.sha256,
            schema.WEIGHTS_BYTES: str(made.hashed.bytes),
            schema.REBUILT: json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), "proof": proof}),
            schema.PRUNED: "",
        }
        put_back(self._store, record.run_id, made.folder, tags)
        return Rebuilt(record.run_id, proof, made.hashed.bytes)

    def _make(self, record: RunRecord) -> Made:
        if record.run_id not in self._made:
            steps = yaml.safe_load(read_text(self._store, record.run_id, schema.RECIPE))["steps"]
            self._made[record.run_id] = self._repeated(record, steps[-1], steps[:-1])
        return self._made[record.run_id]

    def _repeated(self, record: RunRecord, step: Step, before: Sequence[Step]) -> Made:
        """The last step of a recipe done again; its inputs are made again before it where they were deleted."""
        config = self._config(record.search_run_id)
        kind = _action_type(config, step["action"])
        inputs = _inputs(record, step)
        refs = [ref for inside in inputs.values() for ref in inside]
        given = {other["model"]: other["source"] for other in before if other.get("source")}
        models = {
            r.name: self._place(read_run(self._store, r.run_id), given.get(r.name, "")) for r in refs if r.is_model
        }
        data = {ref: self._data(config, ref) for ref in refs if not ref.is_model}
        paths = {s: [models[r.name][0] if r.is_model else data[r] for r in inside] for s, inside in inputs.items()}
        output = self._work / record.run_id
        output.mkdir()
        self._say(f"making {record.name} again, run {record.run_id}")
        outcome: Outcome = self._do(
            "lamdagent.worker.make:make",
            kind.timeout_minutes * 60,
            run_id=record.run_id,
            function=kind.function,
            inputs={**step["hyperparameters"], **keyword_arguments(kind, paths)},
            seed=step["seed"],
            data_fraction=share_of(refs, step["data_fraction"]),
            tasks=(),
            batch_size=1,
            output=str(output),
            checksums=dict(models.values()),
            needs=kind.needs,
        )
        assert outcome.weights is not None
        return Made(output / schema.MODEL_FOLDER, outcome.weights)

    def _data(self, config: Config, ref: ObjectRef) -> str:
        """The file or folder of an input that is no model."""
        return self._rows(ref) if ref.run_id else _declared(config, ref)

    def _rows(self, ref: ObjectRef) -> str:
        """The file of rows that an action made; another experiment's, where its run only stands for that one."""
        record = read_run(self._store, ref.run_id)
        home = json.loads(record.tags.get(schema.DATASET) or "{}").get("run_id") or ref.run_id
        return str(made_rows(self._store, ref, f"runs:/{home}/{schema.DATASET_FOLDER}"))

    def _place(self, record: RunRecord, given: str) -> Place:
        """Place of a parent's weights, made again if pruned; `given`: where they were if others had made them."""
        if record.kind == "base":
            return self._initial(record), ""
        if other := record.tags.get(schema.REUSED):
            return self._place(read_run(self._store, other), given)
        if record.tags.get(schema.PRUNED):
            made = self._make(record)
            return str(made.folder), made.hashed.sha256
        location = record.tags.get(schema.WEIGHTS) or given
        is_address = location.startswith(("runs:/", "models:/"))
        folder = str(self._store.weights(location)) if is_address else location
        return folder, record.tags.get(schema.WEIGHTS_SHA256, "")

    def _initial(self, record: RunRecord) -> str:
        """An initial model, prepared as for a search."""
        spec = json.loads(record.tags[schema.ORIGIN])
        uri = self._store.uri
        ready = self._do("lamdagent.worker.prepare:prepare_model", PREPARE_S, spec=spec, tracking_uri=uri)
        if ready.fingerprint != record.tags.get(schema.MODEL_FINGERPRINT):
            raise UserError(f"rebuild: the initial model {spec['source']} is not what it was when the search began")
        return str(ready.folder)

    def _compared(self, record: RunRecord, made: Made) -> str:
        """Comparison, by their scores, of weights that are not the same: how far they are apart, in words.

        Raises:
            NotRebuilt: another model came out, or nobody can tell.
        """
        config = self._config(record.search_run_id)
        tasks = make_outline(replace(config, actions={}, memory=MemoryConfig())).tasks
        if tasks_tag(tasks) != record.tags.get(schema.TASKS):
            raise NotRebuilt(
                f"Other weights came out for the run {record.run_id}, and its scores prove nothing: the tasks have "
                "changed since. Nothing was put back."
            )
        output = self._work / f"{record.run_id}-scores"
        self._say("other weights came out, so the scores are compared")
        outcome: Outcome = self._do(
            "lamdagent.worker.make:score",
            EVALUATE_S,
            folder=str(made.folder),
            tasks=tasks,
            split="search",
            batch_size=config.evaluation.batch_size,
            output=str(output),
        )
        found = {}
        for task in tasks:
            name = schema.TASK_PREFIX + task.name
            old = Score(record.metrics[name], record.metrics.get(name + schema.STDERR_SUFFIX, 0.0))
            before = items_of(read_text(self._store, record.run_id, f"{schema.SAMPLES_FOLDER}/{task.name}.jsonl"))
            after = read_items(output / schema.SAMPLES_FOLDER, task.name)
            found[task.name] = difference(old, outcome.scores[task.name], before, after)
        words = ", ".join(f"{name} {apart.value:+.3f} +- {apart.stderr:.3f}" for name, apart in found.items())
        if not all(map(within_noise, found.values())):
            raise NotRebuilt(
                f"Another model came out for the run {record.run_id}: its weights differ, and its scores by more than "
                f"noise ({words}). Nothing was put back. Library versions or the device are not what they were."
            )
        return f"other weights, with scores within noise of the old ones ({words})"

    def _config(self, search_run_id: str) -> Config:
        """The settings that the search was started with."""
        return read(OmegaConf.create(yaml.safe_load(read_text(self._store, search_run_id, schema.CONFIG))))

    def _do(self, target: str, timeout_s: float, **arguments: Any) -> Any:
        self._executor.submit(Job("rebuild", target, arguments, timeout_s))
        while (event := self._executor.next_event(5.0)) is None or isinstance(event, Update):
            continue
        if isinstance(event, Failed):
            raise NotRebuilt(f"Nothing was put back, since a step failed ({event.kind}): {event.reason}")
        return event.value


def _action_type(config: Config, name: str) -> ActionType:
    if name not in config.actions:
        raise UserError(f"rebuild: the settings of the run's search have no action {name!r}")
    alone = replace(config, actions={name: config.actions[name]}, tasks={}, memory=MemoryConfig())
    return make_outline(alone).types[0]


def _inputs(record: RunRecord, step: Step) -> Mapping[str, tuple[ObjectRef, ...]]:
    """The inputs of the run with the fingerprints that its recipe has, where the run does not say them."""
    known = {**step["datasets"], **step.get("resources", {})}
    return {
        slot: tuple(replace(ref, fingerprint=ref.fingerprint or known.get(ref.name, "")) for ref in refs)
        for slot, refs in recorded_inputs(record).items()
    }


def _declared(config: Config, ref: ObjectRef) -> str:
    """The local path of a dataset or resource that the user declared, which must be what it was."""
    section = section_of(ref.kind)
    settings = getattr(config, section).get(ref.name)
    if settings is None:
        raise UserError(f"rebuild: the settings of the run's search have no {ref.kind} {ref.name!r}")
    found = load_dataset(ref.name, settings) if ref.kind == DATASET else load_resource(ref.name, settings)
    if found.fingerprint != ref.fingerprint:
        raise UserError(
            f"rebuild: the {ref.kind} {ref.name} has changed since the run: its content has the fingerprint "
            f"{found.fingerprint}, wanted {ref.fingerprint}. Bring back what {settings.source or ref.name} held."
        )
    return found.path
