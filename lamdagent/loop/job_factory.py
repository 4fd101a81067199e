"""The jobs of a search: prepare a model, train and score an action's model, score a model that exists."""

from collections.abc import Collection
from pathlib import Path

from lamdagent.actions.action import Action, ActionType, inputs_of
from lamdagent.evaluation.task import Split
from lamdagent.execution.executor import Job
from lamdagent.loop.run_writer import RunWriter
from lamdagent.objects.adapters import spec_of
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan

PREPARE_S = 3600.0
"""Longest time that fetching or converting an initial model may take."""
EVALUATE_S = 6 * 3600.0
"""Longest evaluation of one model."""


class JobFactory:
    """Builds the jobs of one search; their arguments are plain values, so that a job can cross a network."""

    def __init__(self, plan: Plan, journal: RunWriter, work: Path) -> None:
        """`work`: folder for the output of jobs where artifacts are on a server."""
        self._plan = plan
        self._journal = journal
        self._work = work
        self._outputs: dict[str, Path] = {}

    def gpus_job(self) -> Job:
        """The job that counts the GPUs that one action uses here."""
        return Job("gpus", "lamdagent.worker.make:gpus", {}, PREPARE_S)

    def prepare_job(self, job_id: str, name: str) -> Job:
        """The job that fetches and converts the initial model `name`."""
        spec = spec_of(name, self._plan.config.models)
        arguments = {"spec": spec, "tracking_uri": self._journal.store.uri}
        return Job(job_id, "lamdagent.worker.prepare:prepare_model", arguments, PREPARE_S)

    def train_job(self, run_id: str, action: Action, limit_s: float) -> Job:
        """The job that makes the model of `action` and scores it on the search split.

        Raises:
            LamdagentError: the weights or rows of an input are not available.
        """
        kind = self.type_of(action)
        folders = {model: self._journal.folder(model) for model in action.models}
        arguments = {
            "run_id": run_id,
            "function": kind.function,
            "inputs": inputs_of(action, kind, folders.__getitem__, self._journal.rows),
            "checksums": {folder: model.sha256 for model, folder in folders.items()},
            "seed": action.seed,
            "data_fraction": action.share,
            "tasks": self._plan.tasks,
            "batch_size": self._plan.config.evaluation.batch_size,
            "output": str(self.output(run_id)),
            "accelerate": dict(kind.accelerate),
            "needs": kind.needs,
            "overlap": self._plan.config.evaluation.overlap,
        }
        return Job(run_id, "lamdagent.worker.make:make", arguments, limit_s)

    def eval_job(self, run_id: str, model: Model, split: Split, known: Collection[str] = ()) -> Job:
        """The job that scores `model` on all tasks except those in `known`.

        Raises:
            LamdagentError: its weights are not available.
        """
        arguments = {
            "folder": self._journal.folder(model),
            "tasks": [task for task in self._plan.tasks if task.name not in known],
            "split": split,
            "batch_size": self._plan.config.evaluation.batch_size,
            "output": str(self.output(run_id)),
        }
        return Job(run_id, "lamdagent.worker.make:score", arguments, EVALUATE_S)

    def output(self, run_id: str) -> Path:
        """The folder for the worker's files: beside local artifacts, so that a rename publishes them."""
        # Kept from the first call on: during an outage the store cannot say where the artifacts will be.
        folder = self._outputs.setdefault(run_id, self._journal.staging(run_id) or self._work / run_id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def type_of(self, action: Action) -> ActionType:
        """The type of `action`."""
        return next(t for t in self._plan.types if t.name == action.type)
