"""The Model Registry: a run's model registered under a name, loadable with `mlflow.transformers.load_model`."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from importlib import metadata
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lamdagent.tracking.artifact_layout import local_root
from lamdagent.tracking.connect import open_client
from lamdagent.tracking.run_info import RunInfoCache
from lamdagent.tracking.schema import CHAMPION_ALIAS
from lamdagent.tracking.store import RunStore

Place = Callable[[str, str], object]
"""Brings a file to its new name, as `os.symlink` does."""
MakePipeline = Callable[[Place], Any]
"""Makes a transformers pipeline that describes a model without its weights; saving it places the files."""


def registered_names(store: RunStore, run_ids: Collection[str]) -> dict[str, str]:
    """Run id -> registered model's name, for those of `run_ids` that made a version of one."""
    found = {}
    for run_id in run_ids:
        if versions := store.client.search_model_versions(f"run_id = '{run_id}'", max_results=1):
            found[run_id] = str(versions[0].name)
    return found


def register_version(uri: str, run_id: str, name: str, card: Any, make_pipeline: MakePipeline) -> str:
    """Version of the registered model `name`, alias `champion`, that the run's model is now.

    The run's own LoggedModel gets the flavour's files, so that version, model, run and lineage are one thing in MLflow.
    The run itself is not touched. A model that is registered already only gets alias and card back. On a local artifact
    root the weights are hard links to the run's own, on a server they are uploaded again.

    Args:
        uri: The store, `RunStore.uri`.
        run_id: A finished base or action run.
        name: Registered model; made if missing.
        card: A `huggingface_hub.ModelCard`: shown on the version's page and kept beside the weights.
        make_pipeline: Only called when the model is not registered yet.

    Raises:
        ValueError: the run has no model.
    """
    import mlflow

    # MLflow looks a version's model up in the store that is set for the whole process, whatever the client's.
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = open_client(uri)
    model_id = RunInfoCache().fetch(client, run_id).model_id
    if model_id is None:
        raise ValueError(f"The run {run_id} has no model to register.")
    version = _known_version(client, name, model_id)
    if version is None:
        _add_flavour(client, run_id, model_id, card, make_pipeline)
        _ensure_name(client, name)
        made = client.create_model_version(name, f"models:/{model_id}", run_id=run_id, model_id=model_id)
        version = str(made.version)
    client.update_model_version(name, version, card.text)
    client.set_registered_model_alias(name, CHAMPION_ALIAS, version)
    return version


def _known_version(client: MlflowClient, name: str, model_id: str) -> str | None:
    """The version that `model_id` already is. Over REST only `source` tells."""
    versions = client.search_model_versions(f"name = '{name}'")
    return next((str(v.version) for v in versions if v.source == f"models:/{model_id}"), None)


def _add_flavour(client: MlflowClient, run_id: str, model_id: str, card: Any, make_pipeline: MakePipeline) -> None:
    """Give the LoggedModel the files of MLflow's transformers flavour, all at once on a local root."""
    from mlflow.models import Model

    location = client.get_logged_model(model_id).artifact_location
    info = Model(artifact_path=location, model_uuid=model_id, model_id=model_id, run_id=run_id)
    root = local_root(location)
    if root is None:
        with tempfile.TemporaryDirectory() as work:
            _write(Path(work) / "model", info, make_pipeline(os.symlink), card)
            client.log_model_artifacts(model_id, f"{work}/model")
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as work:
        _write(Path(work) / "model", info, make_pipeline(_link_or_copy), card)
        shutil.rmtree(root, ignore_errors=True)  # of a registration that was cut off
        (Path(work) / "model").rename(root)


def _write(path: Path, info: Any, pipeline: Any, card: Any) -> None:
    """MLflow's transformers flavour of the pipeline's model, in `path`."""
    import mlflow

    mlflow.transformers.save_model(
        pipeline,
        path,
        mlflow_model=info,
        # How `mlflow models serve` is asked.
        task="llm/v1/chat" if pipeline.tokenizer.chat_template else "llm/v1/completions",
        model_card=card,
        pip_requirements=_requirements(),
    )
    (path / "LICENSE.txt").unlink(missing_ok=True)  # MLflow's guess; the card has the licence


def _requirements() -> list[str]:
    """Requirements of loading the model; without them MLflow would load the model in a child process to find out.

    Of a version such as 2.13.0+cpu only 2.13.0: registries list no builds, and MLflow warns of those it cannot compare.
    """
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in ("mlflow", "torch", "transformers")]


def _link_or_copy(source: str, target: str) -> None:
    """A second name for the same bytes; a copy where the file system has no such thing."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def _ensure_name(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
