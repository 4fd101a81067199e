"""Reads of runs for other rooms, in plain values, besides the working set."""

import sys
import tempfile
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from lamdagent.errors import UserError
from lamdagent.text import one_line
from lamdagent.tracking.artifact_layout import local_root
from lamdagent.tracking.external import open_to_read
from lamdagent.tracking.patch import PROVISIONAL
from lamdagent.tracking.queries import working_set
from lamdagent.tracking.runs import RunRecord, record_of
from lamdagent.tracking.store import RunStore


def open_store_of(uri: str | None, run_id: str, *, look: bool = True) -> RunStore:
    """The store, opened at the experiment of the run; `look`: to read alone, as `RunStore` says.

    Raises:
        UserError: there is no store, or no such run in it.
    """
    return RunStore(uri, open_to_read(uri).experiment_of(run_id), look=look)


def read_run(store: RunStore, run_id: str) -> RunRecord:
    """A run of any experiment.

    Raises:
        UserError: it was purged.
    """
    try:
        return record_of(store.client.get_run(run_id))
    except MlflowException as error:
        raise UserError(f"The run {run_id} cannot be read any more: {one_line(error, 120)}") from None


def read_text(store: RunStore, run_id: str, path: str) -> str:
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


def read_every_run(store: RunStore) -> list[RunRecord]:
    """All our runs of the experiment, oldest first, read anew: a millisecond or two for each."""
    return working_set(store.client, store.experiment_id, newest=sys.maxsize)


def metric_history(store: RunStore, run_id: str, metric: str) -> list[tuple[int, float]]:
    """Step and value of each point of a metric."""
    return [(point.step, point.value) for point in store.client.get_metric_history(run_id, metric)]


def artifact_folder(store: RunStore, run_id: str) -> Path | None:
    """The folder of the run's artifacts; None when they are on a server, or when that cannot be told in an outage."""
    run_id = store.resolve_run_id(run_id)
    known = store.cache.get(run_id) or store.cache.infos.get(run_id)
    if known is None and not PROVISIONAL.fullmatch(run_id):
        known = store.connection.attempt(lambda: store.cache.infos.fetch(store.client, run_id))
    return local_root(known.artifact_uri) if known else None


def experiment_folder(store: RunStore) -> Path | None:
    """The folder of the experiment's artifacts; None when they are on a server."""
    found = store.connection.ask(lambda: store.client.get_experiment(store.experiment_id).artifact_location)
    return local_root(found)
