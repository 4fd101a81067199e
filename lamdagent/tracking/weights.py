"""Weights: from a staging folder into the store without a needless copy, and back to a local folder."""

import errno
import shutil
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from lamdagent.errors import UserError
from lamdagent.objects.offline import cache_folder
from lamdagent.tracking.layout import gathered, local_root, settle
from lamdagent.tracking.schema import KIND, MODEL_FOLDER, WEIGHTS


def publish(client: MlflowClient, run_id: str, staging: Path, artifact_path: str = MODEL_FOLDER) -> None:
    """Make `staging` the artifact folder `artifact_path` of the run. `staging` is CONSUMED.

    On a local artifact root of the same file system it is renamed: at once, no second copy, never half there.
    Calling it again after a failure is safe, also when the folder had already arrived.
    """
    if not staging.exists() and client.list_artifacts(run_id, artifact_path):
        return
    root = local_root(client.get_run(run_id).info.artifact_uri)
    if root is None:
        client.log_artifacts(run_id, str(staging), artifact_path)
        shutil.rmtree(staging)
        return
    target = root / artifact_path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    open_to_all(staging)
    _rename(staging, target)


def open_to_all(folder: Path) -> None:
    """Tempfile's folders and safetensors' files are private; artifacts are for everyone who may see the store."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def model_folder(client: MlflowClient, run_id: str) -> Path:
    """Local folder of the weights that the run made: in place on a local root, else downloaded once.

    Raises:
        UserError: the run has no weights (any more).
    """
    root = local_root(client.get_run(run_id).info.artifact_uri)
    if root is None:
        return _fetched(client, f"runs:/{run_id}/{MODEL_FOLDER}", f"run-{run_id}")
    folder = root / MODEL_FOLDER
    if not folder.is_dir():
        raise UserError(f"The run {run_id} has no weights at {folder}; they were never written or have been deleted.")
    return folder


def download_model(uri: str, tracking_uri: str | None = None) -> str:
    """Local Hugging Face folder of `runs:/<run id>/<path>`, `models:/<name>@<alias>` or `models:/<name>/<version>`.

    Raises:
        UserError: there is no such model, or it is not in a layout that is known.
    """
    from lamdagent.tracking.connect import open_client, resolve_uri

    return str(fetch(open_client(resolve_uri(tracking_uri)), uri))


def fetch(client: MlflowClient, uri: str) -> Path:
    """`download_model` with a store that is open already; `models:/<model id>` and folders will do, too."""
    try:
        return _resolve(client, uri)
    except MlflowException as error:
        raise UserError(f"The model {uri} cannot be read from MLflow: {str(error).splitlines()[0]}") from None


def _resolve(client: MlflowClient, uri: str) -> Path:
    """The local folder behind any URI; our own models lead to the run that made them."""
    if not uri.startswith("models:/"):
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        ours = uri.startswith("runs:/") and path == MODEL_FOLDER and KIND in client.get_run(run_id).data.tags
        return model_folder(client, run_id) if ours else gathered(client, uri)
    name = uri.removeprefix("models:/")
    if "@" in name:
        version = client.get_model_version_by_alias(*name.split("@", 1))
        return _resolve(client, f"models:/{version.name}/{version.version}")
    if "/" in name:
        return _resolve(client, client.get_model_version(*name.split("/", 1)).source or "")
    weights = client.get_logged_model(name).tags.get(WEIGHTS)
    return _resolve(client, weights) if weights else gathered(client, uri)


def _fetched(client: MlflowClient, uri: str, name: str) -> Path:
    """Download `uri` into the user's cache, once; safe with several processes at once."""
    cache = cache_folder() / "models"
    target = cache / name
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cache))
        folder = Path(download_artifacts(uri, dst_path=str(work), tracking_uri=client.tracking_uri))
        settle(folder, target)
        shutil.rmtree(work, ignore_errors=True)
    return target


def _rename(source: Path, target: Path) -> None:
    """Rename; over file systems copy beside the target first, so that the target is complete or absent."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".uploading-"))
        shutil.copytree(source, work, dirs_exist_ok=True)
        work.rename(target)
        shutil.rmtree(source)
