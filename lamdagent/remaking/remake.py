"""Deleted weights made again from the store alone, and put back once proven."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from lamdagent.actions.action import ActionType
from lamdagent.config import Config, MemoryConfig, read
from lamdagent.errors import NotRebuilt, UserError
from lamdagent.evaluation.task import Score
from lamdagent.execution.executor import Executor, Failed, Job, Update
from lamdagent.loop.job_factory import EVALUATE_S, PREPARE_S
from lamdagent.loop.run_content import tasks_tag
from lamdagent.objects.checksum import WeightsHash
from lamdagent.objects.dataset import Dataset, is_made
from lamdagent.objects.rows import load_dataset
from lamdagent.planning.plan import make_outline
from lamdagent.remaking.proof import difference, items_of, read_items, within_noise
from lamdagent.remaking.rebuilt import Rebuilt
from lamdagent.tracking import schema
from lamdagent.tracking.datasets import rows_of
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
        made = {name: known for name, known in step["datasets"].items() if is_made(name)}
        names = [name for names in step["inputs"].values() for name in names]
        runs = dict(zip((n for n in names if n in made or n not in step["datasets"]), record.parents, strict=True))
        data = {n: _dataset(config, n, known) for n, known in step["datasets"].items() if n not in made}
        data |= {name: self._rows(name, known, runs[name]) for name, known in made.items()}
        models = self._models({n: run_id for n, run_id in runs.items() if n not in made}, before)
        folders = data | {name: folder for name, (folder, _) in models.items()}
        objects = {slot: [folders[name] for name in names] for slot, names in step["inputs"].items()}
        several = {slot.name for slot in kind.slots if slot.kind == "models"}
        output = self._work / record.run_id
        output.mkdir()
        self._say(f"making {record.name} again, run {record.run_id}")
        outcome: Outcome = self._do(
            "lamdagent.worker.make:make",
            kind.timeout_minutes * 60,
            run_id=record.run_id,
            function=kind.function,
            inputs={**step["hyperparameters"], **{s: o if s in several else o[0] for s, o in objects.items()}},
            seed=step["seed"],
            data_fraction=1.0 if made and len(made) == len(data) else step["data_fraction"],  # as `Action.share`
            tasks=(),
            batch_size=1,
            output=str(output),
            checksums=dict(models.values()),
            needs=kind.needs,
        )
        assert outcome.weights is not None
        return Made(output / schema.MODEL_FOLDER, outcome.weights)

    def _models(self, runs: Mapping[str, str], before: Sequence[Step]) -> dict[str, Place]:
        """The input models by name, of which `runs` has the run ids."""
        given = {other["model"]: other["source"] for other in before if other.get("source")}
        return {name: self._place(read_run(self._store, run_id), given.get(name, "")) for name, run_id in runs.items()}

    def _rows(self, name: str, fingerprint: str, run_id: str) -> str:
        """The file of rows that an action made; another experiment's, where its run only stands for that one."""
        record = read_run(self._store, run_id)
        home = json.loads(record.tags.get(schema.DATASET) or "{}").get("run_id") or run_id
        path = f"runs:/{home}/{schema.DATASET_FOLDER}"
        return str(rows_of(self._store, Dataset(name, "sft", "", fingerprint, 1, path, run_id=run_id)))

    def _place(self, record: RunRecord, given: str) -> Place:
        """Where a parent's weights are, or are now; `given`: where they were if others had made them."""
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
        """What the scores say about weights that are not the same; how far they are apart, in words.

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


def _dataset(config: Config, name: str, fingerprint: str) -> str:
    """The file of the dataset's rows, which must be what they were."""
    if name not in config.datasets:
        raise UserError(f"rebuild: the settings of the run's search have no dataset {name!r}")
    found = load_dataset(name, config.datasets[name])
    if found.fingerprint != fingerprint:
        raise UserError(
            f"rebuild: the dataset {name} has changed since the run: its rows have the fingerprint "
            f"{found.fingerprint}, wanted {fingerprint}. Bring back what {config.datasets[name].source or name} held."
        )
    return found.path
