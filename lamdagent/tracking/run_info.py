"""Facts about runs that never change: a parent is asked for once, not for each of its children."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

MOST = 2000
"""Runs that are remembered; the least recently added are forgotten first."""


@dataclass(frozen=True)
class RunInfo:
    """The fixed facts of a run of any experiment."""

    run_id: str
    name: str
    experiment_id: str
    artifact_uri: str
    model_id: str | None
    """Id of the LoggedModel that it made; None when it made none, or has not yet."""


class RunInfoCache:
    """Facts about runs that this process has opened or asked for. Only a missing model id is ever asked for again."""

    def __init__(self) -> None:
        """Empty."""
        self._known: OrderedDict[str, RunInfo] = OrderedDict()

    def add(self, run: Run) -> RunInfo:
        """Remember a run as it was read or made."""
        outputs = run.outputs.model_outputs if run.outputs else []
        model_id = str(outputs[0].model_id) if outputs else None
        info = run.info
        return self._keep(
            RunInfo(info.run_id, info.run_name or "", info.experiment_id, str(info.artifact_uri), model_id)
        )

    def set_model(self, run_id: str, model_id: str) -> str:
        """Remember the model that a known run has made; its id."""
        self._keep(replace(self._known[run_id], model_id=model_id))
        return model_id

    def get(self, run_id: str) -> RunInfo | None:
        """The run, if it is known here."""
        return self._known.get(run_id)

    def fetch(self, client: MlflowClient, run_id: str, *, fresh: bool = False) -> RunInfo:
        """The run, asked for if it is unknown, or with `fresh`: another process may have made its model."""
        return (None if fresh else self._known.get(run_id)) or self.add(client.get_run(run_id))

    def parents(self, client: MlflowClient, run_ids: Sequence[str]) -> list[RunInfo]:
        """The runs, each once; without those that their owners have purged, which is no reason for us to stop."""
        found = []
        for run_id in dict.fromkeys(run_ids):
            known = self._known.get(run_id)
            try:  # one without a model may have made it since
                found.append(known if known and known.model_id else self.add(client.get_run(run_id)))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        return found

    def _keep(self, run: RunInfo) -> RunInfo:
        self._known[run.run_id] = run
        self._known.move_to_end(run.run_id)
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        return run
