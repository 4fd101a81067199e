"""A model's files behind an MLflow address: found, looked into and gathered; nothing else is fetched, no pickle ever.

Three layouts are known: Hugging Face's own; the transformers flavour, which keeps weights and tokenizer in two folders;
and a checkpoint that the Trainer logs as an artifact of a Python model (HF_MLFLOW_LOG_ARTIFACTS=1).
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from lamdagent.errors import UserError
from lamdagent.files import cache_folder
from lamdagent.text import one_line
from lamdagent.tracking.runs import Weights

KEPT = (".json", ".safetensors", ".jinja", ".model", ".txt")
"""Endings of the files that make a model; optimizer states, pickles and code stay where they are."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")

Files = Mapping[str, str]
"""File name in Hugging Face layout -> path below the artifact root."""


def local_root(artifact_uri: str | None) -> Path | None:
    """The folder of a local artifact root, None for a remote one and for one that cannot be told."""
    if artifact_uri is None:
        return None
    return Path(local_file_uri_to_path(artifact_uri)) if is_local_uri(artifact_uri) else None  # type: ignore[no-untyped-call]


def root_of(client: MlflowClient, uri: str) -> tuple[str, str]:
    """Artifact root and path below it of `runs:/<id>/<path>`, `models:/<model id>`, an artifact URI or a folder."""
    if uri.startswith("runs:/"):
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        return str(client.get_run(run_id).info.artifact_uri), path
    if uri.startswith("models:/"):
        return str(client.get_logged_model(uri.removeprefix("models:/")).artifact_location), ""
    return uri, ""


def inspect(client: MlflowClient, uri: str) -> Weights:
    """Weights at `uri` (see `root_of`), known from names of files and config.json alone; a fault is in `problem`."""
    try:
        root, path = root_of(client, uri)
        files = _find(client, root, path)
        if "config.json" not in files and "adapter_config.json" in files:
            return Weights(adapter=True, problem="it is a LoRA adapter only; merge it into its base and log that")
        if problem := _lacking(files):
            return Weights(problem=problem)
        config = _read_json(client, root, files["config.json"])
    except (MlflowException, OSError, ValueError) as error:
        return Weights(problem=f"its files cannot be read ({one_line(error, 120)})")
    names = config.get("architectures")
    if not isinstance(names, list) or not names or config.get("auto_map"):
        return Weights(problem="its config.json names no architecture that runs without code of its own")
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return Weights(uri, one_line(names[0], 100), size if isinstance(size, int) else 0)


def materialize(client: MlflowClient, uri: str) -> Path:
    """Local folder in Hugging Face layout of `uri` (see `root_of`); in place where it already is one.

    Otherwise links to local files, or downloads, in the user's cache: what belongs to others is never written to.

    Raises:
        UserError: there is no such model, or it cannot be read.
    """
    try:
        root, path = root_of(client, uri)
        local = local_root(root)
        if local is not None and (local / path / "config.json").is_file():
            return local / path
        files = _find(client, root, path)
        if problem := _lacking(files):
            raise UserError(f"The model {uri} cannot be used: {problem}.")
        return _collect(client, root, files)
    except (MlflowException, OSError) as error:
        raise UserError(f"The model {uri} cannot be read: {one_line(error, 200)}") from None


def move_into_place(work: Path, target: Path) -> None:
    """Rename a complete folder into place; whoever comes second throws its own away."""
    import shutil

    try:
        work.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(work, ignore_errors=True)


def _collect(client: MlflowClient, root: str, files: Files) -> Path:
    digest = hashlib.sha256(json.dumps([root, sorted(files.items())]).encode()).hexdigest()[:24]
    target = cache_folder() / "models" / f"gathered-{digest}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent))
    local = local_root(root)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        for name, path in files.items():
            if local is not None:
                (work / name).symlink_to(local / path)
            else:
                os.replace(_repository(client, root).download_artifacts(path, scratch), work / name)
    move_into_place(work, target)
    return target


def _repository(client: MlflowClient, root: str) -> Any:
    return get_artifact_repository(root, tracking_uri=client.tracking_uri)


def _find(client: MlflowClient, root: str, path: str) -> Files:
    """The model's files, wherever its layout keeps them; empty when there is no model."""
    repository = _repository(client, root)
    entries = repository.list_artifacts(path or None)
    files = _kept(entries)
    folders = {PurePosixPath(entry.path).name: entry.path for entry in entries if entry.is_dir}
    if "config.json" in files or "adapter_config.json" in files or not folders:
        return files
    if "model" in folders:  # the transformers flavour
        components = folders.get("components")
        tokenizer = _kept(repository.list_artifacts(f"{components}/tokenizer")) if components else {}
        return {**tokenizer, **_kept(repository.list_artifacts(folders["model"]))}
    if "artifacts" in folders:  # the Trainer's checkpoint
        inside = [entry.path for entry in repository.list_artifacts(folders["artifacts"]) if entry.is_dir]
        return _kept(repository.list_artifacts(inside[0])) if len(inside) == 1 else {}
    return files


def _kept(entries: Iterable[Any]) -> dict[str, str]:
    files = (entry.path for entry in entries if not entry.is_dir and entry.path.endswith(KEPT))
    return {PurePosixPath(path).name: path for path in files}


def _lacking(files: Files) -> str:
    if "config.json" not in files:
        return "there is no model in Hugging Face layout (config.json, *.safetensors)"
    if not any(name.endswith(".safetensors") for name in files):
        return "it has no *.safetensors; other formats could run code and are never read"
    return "" if any(name in files for name in TOKENIZERS) else "it has no tokenizer beside it"


def _read_json(client: MlflowClient, root: str, path: str) -> dict[str, Any]:
    local = local_root(root)
    if local is not None:
        text = (local / path).read_text(encoding="utf-8")
    else:
        with tempfile.TemporaryDirectory() as scratch:
            text = Path(_repository(client, root).download_artifacts(path, scratch)).read_text(encoding="utf-8")
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("config.json is no JSON object")
    return value
