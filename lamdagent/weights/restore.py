"""What a rebuild reads of a run, and how its weights come back: the store alone, no configuration."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from lamdagent.errors import UserError
from lamdagent.memory.external.feed import open_to_read
from lamdagent.text import one_line
from lamdagent.tracking.artifact_layout import local_root
from lamdagent.tracking.runs import RunRecord, record_of
from lamdagent.tracking.store import Store
from lamdagent.tracking.weights import publish


def open_store_of(uri: str | None, run_id: str) -> Store:
    """The store, opened at the experiment of the run.

    Raises:
        UserError: there is no store, or no such run in it.
    """
    client = open_to_read(uri)
    try:
        experiment = client.get_run(run_id).info.experiment_id
    except MlflowException as error:
        raise UserError(f"There is no run {one_line(run_id, 60)} in the store ({one_line(error, 120)})") from None
    return Store(uri, client.get_experiment(experiment).name)


def read_run(store: Store, run_id: str) -> RunRecord:
    """A run of any experiment.

    Raises:
        UserError: it was purged.
    """
    try:
        return record_of(store.client.get_run(run_id))
    except MlflowException as error:
        raise UserError(f"The run {run_id} cannot be read any more: {one_line(error, 120)}") from None


def read_text(store: Store, run_id: str, path: str) -> str:
    """A text artifact.

    Raises:
        UserError: the run has none at `path`.
    """
    with tempfile.TemporaryDirectory() as work:
        try:
            uri = store.client.tracking_uri
            found = download_artifacts(run_id=run_id, artifact_path=path, dst_path=work, tracking_uri=uri)
            return Path(found).read_text(encoding="utf-8")
        except (MlflowException, OSError) as error:
            raise UserError(f"The run {run_id} has no {path} ({one_line(error, 120)})") from None


def workplace(store: Store, run_id: str) -> Path | None:
    """A folder from which a rename publishes weights of the run; None where its artifacts are on a server."""
    root = local_root(store.artifact_uri(run_id))
    return root.parent if root else None


def put_back(store: Store, run_id: str, folder: Path, tags: Mapping[str, str]) -> None:
    """Publish `folder`, which is consumed, as the weights of the run, and then say so in its `tags`."""
    publish(store.client, store.courier.met.of(store.client, run_id).artifact_uri, run_id, folder)
    store.set_tags(run_id, tags)
