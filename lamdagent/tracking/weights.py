"""Weights: from a staging folder into the store without a needless copy, and back to a local folder."""

import errno
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from lamdagent.errors import UserError
from lamdagent.files import cache_folder
from lamdagent.tracking.artifact_layout import local_root, materialize, move_into_place
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.schema import KIND, MODEL_FOLDER, PRUNED, WEIGHTS

if TYPE_CHECKING:
    from lamdagent.tracking.store import RunStore


def publish(client: MlflowClient, artifact_uri: str, run_id: str, staging: Path, *, keep: bool = False) -> None:
    """Make `staging` the run's artifact folder of weights. `staging` is CONSUMED unless it is to be kept.

    On a local artifact root of the same file system it is renamed: at once, no second copy, never half there.
    Calling it again after a failure is safe, also when the folder had already arrived.
    """
    if not staging.exists() and client.list_artifacts(run_id, MODEL_FOLDER):
        return
    root = local_root(artifact_uri)
    if root is None:
        _upload(client, run_id, staging)
        if not keep:
            shutil.rmtree(staging)
        return
    target = root / MODEL_FOLDER
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    open_to_all(staging)
    if keep:
        staging = Path(shutil.copytree(staging, Path(tempfile.mkdtemp(dir=target.parent)) / MODEL_FOLDER))
    _rename(staging, target)
    if keep:
        staging.parent.rmdir()


def open_to_all(folder: Path) -> None:
    """Tempfile's folders and safetensors' files are private; artifacts are for everyone who may see the store."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def run_of(uri: str) -> str:
    """The run whose own weights `uri` names, as `runs:/<run id>/model` does; empty for any other address."""
    run_id, _, path = uri.removeprefix("runs:/").partition("/")
    return run_id if uri.startswith("runs:/") and path == MODEL_FOLDER else ""


def at_hand(known: RunRecord | None) -> Path | None:
    """The weights of a run that is known to have some, if they are on a local root."""
    if known is None or known.status != "FINISHED" or known.tags.get(PRUNED):
        return None
    root = local_root(known.artifact_uri)
    return root / MODEL_FOLDER if root and (root / MODEL_FOLDER).is_dir() else None


def _folder_of(client: MlflowClient, run: Run) -> Path:
    """Local folder of the weights that the run made: in place on a local root, else downloaded once."""
    run_id = run.info.run_id
    if run.data.tags.get(PRUNED):
        again = f"`python -m lamdagent rebuild {run_id}` makes them again"
        raise UserError(f"The weights of the run {run_id} are pruned; {again}.")
    root = local_root(run.info.artifact_uri)
    if root is None:
        return _fetched(client, f"runs:/{run_id}/{MODEL_FOLDER}", cached_model(run_id))
    folder = root / MODEL_FOLDER
    if not folder.is_dir():
        raise UserError(f"The run {run_id} has no weights at {folder}; they were never written or have been deleted.")
    return folder


def download_model(uri: str, tracking_uri: str | None = None) -> str:
    """Local Hugging Face folder of `runs:/<run id>/<path>`, `models:/<name>@<alias>` or `models:/<name>/<version>`.

    Raises:
        UserError: there is no such model, or it is not in a layout that is known.
    """
    from lamdagent.tracking.connect import open_to_look, resolve_uri

    return str(fetch(open_to_look(resolve_uri(tracking_uri)), uri))


def fetch(client: MlflowClient, uri: str) -> Path:
    """`download_model` with a store that is open already; `models:/<model id>` and folders will do, too."""
    try:
        return _resolve(client, uri)
    except MlflowException as error:
        raise UserError(f"The model {uri} cannot be read from MLflow: {str(error).splitlines()[0]}") from error


def _resolve(client: MlflowClient, uri: str) -> Path:
    """The local folder behind any URI; our own models lead to the run that made them."""
    if not uri.startswith("models:/"):
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        run = client.get_run(run_id) if uri.startswith("runs:/") and path == MODEL_FOLDER else None
        return _folder_of(client, run) if run and KIND in run.data.tags else materialize(client, uri)
    name = uri.removeprefix("models:/")
    if "@" in name:
        version = client.get_model_version_by_alias(*name.split("@", 1))
        return _resolve(client, f"models:/{version.name}/{version.version}")
    if "/" in name:
        return _resolve(client, client.get_model_version(*name.split("/", 1)).source or "")
    weights = client.get_logged_model(name).tags.get(WEIGHTS)
    return _resolve(client, weights) if weights else materialize(client, uri)


def cached_model(run_id: str) -> Path:
    """Folder on this machine for the weights of a run whose artifacts are on a server, once they were wanted here."""
    return cache_folder() / "models" / f"run-{run_id}"


def stored_bytes(store: "RunStore", run_id: str) -> int:
    """Bytes of the run's weights in the store."""
    return sum(file.file_size or 0 for file in store.client.list_artifacts(run_id, MODEL_FOLDER))


def put_back(store: "RunStore", run_id: str, folder: Path, tags: Mapping[str, str]) -> None:
    """Publish `folder`, which is consumed, as the weights of the run, and then say so in its `tags`."""
    publish(store.client, store.cache.infos.fetch(store.client, run_id).artifact_uri, run_id, folder)
    store.update(run_id, tags=tags)


def delete_weights(store: "RunStore", run_id: str) -> None:
    """Delete `model/` of a run that says it is pruned, and this machine's copy; nothing happens where there is none.

    On a local root it goes at once, so that a half-deleted model is never taken for a whole one.
    """
    run = store.client.get_run(run_id)
    if not run.data.tags.get(PRUNED):
        return
    shutil.rmtree(cached_model(run_id), ignore_errors=True)
    uri = run.info.artifact_uri
    root = local_root(uri)
    if root is None:
        repository = get_artifact_repository(uri, tracking_uri=store.client.tracking_uri)
        repository.delete_artifacts(MODEL_FOLDER)  # type: ignore[no-untyped-call]
        return
    folder, doomed = root / MODEL_FOLDER, root.parent / "pruned"
    if folder.is_dir():
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _fetched(client: MlflowClient, uri: str, target: Path) -> Path:
    """Download `uri` into the user's cache, once; safe with several processes at once, and nothing half is left."""
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            move_into_place(Path(download_artifacts(uri, dst_path=work, tracking_uri=client.tracking_uri)), target)
    return target


def _upload(client: MlflowClient, run_id: str, folder: Path) -> None:
    """File by file, without those that an upload that was cut off had brought there whole."""
    there = {Path(file.path).name: file.file_size for file in client.list_artifacts(run_id, MODEL_FOLDER)}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            client.log_artifacts(run_id, str(path), f"{MODEL_FOLDER}/{path.name}")
        elif there.get(path.name) != path.stat().st_size:
            client.log_artifact(run_id, str(path), MODEL_FOLDER)


def _rename(source: Path, target: Path) -> None:
    """Rename; over file systems copy beside the target first, so that the target is complete or absent."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".uploading-") as work:
            Path(shutil.copytree(source, Path(work) / target.name)).rename(target)
        shutil.rmtree(source)
