"""The winner in the Model Registry, loadable with `mlflow.transformers.load_model`. Runs where torch lives."""

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from lamdagent.tracking.artifact_layout import local_root
from lamdagent.tracking.connect import open_client
from lamdagent.tracking.run_info import Met
from lamdagent.tracking.schema import CHAMPION_ALIAS, MODEL_FOLDER


def register(report: Callable[..., None], *, uri: str, run_id: str, folder: str, name: str, card: str) -> str:
    """Register the run's model under `name`, alias `champion`; return the version. A job's target, see executor.Job.

    The run's own LoggedModel gets the flavour's files, so that version, model, run and lineage are one thing in
    MLflow. The run itself is not touched. A model that is registered already only gets alias and card back. Weights are
    never loaded; on a local artifact root they are hard links to the run's own, on a server they are uploaded again.

    Args:
        report: Unused; every job has it.
        uri: The store, `Store.uri`.
        run_id: A finished base or action run.
        folder: Its weights, `Store.model_folder(run_id)`.
        name: Registered model; made if missing.
        card: The model card with its metadata block: shown on the version's page and kept beside the weights.
    """
    import mlflow
    from huggingface_hub import ModelCard

    # MLflow looks a version's model up in the store that is set for the whole process, whatever the client's.
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = open_client(uri)
    model_id = Met().of(client, run_id).model_id
    if model_id is None:
        raise ValueError(f"The run {run_id} has no model to register.")
    content = ModelCard(card, ignore_metadata_errors=True)
    version = _known_version(client, name, model_id)
    if version is None:
        _add_flavour(client, run_id, model_id, Path(folder), content)
        _ensure_name(client, name)
        made = client.create_model_version(name, f"models:/{model_id}", run_id=run_id, model_id=model_id)
        version = str(made.version)
    client.update_model_version(name, version, content.text)
    client.set_registered_model_alias(name, CHAMPION_ALIAS, version)
    return version


def _known_version(client: Any, name: str, model_id: str) -> str | None:
    """The version that `model_id` already is. Over REST only `source` tells."""
    versions = client.search_model_versions(f"name = '{name}'")
    return next((str(v.version) for v in versions if v.source == f"models:/{model_id}"), None)


def _add_flavour(client: Any, run_id: str, model_id: str, folder: Path, card: Any) -> None:
    """Give the LoggedModel the files of MLflow's transformers flavour, all at once on a local root."""
    from mlflow.models import Model

    location = client.get_logged_model(model_id).artifact_location
    info = Model(artifact_path=location, model_uuid=model_id, model_id=model_id, run_id=run_id)
    root = local_root(location)
    if root is None:
        with tempfile.TemporaryDirectory() as work:
            _write(Path(work) / "model", info, run_id, folder, card, os.symlink)
            client.log_model_artifacts(model_id, f"{work}/model")
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as work:
        _write(Path(work) / "model", info, run_id, folder, card, _link_or_copy)
        shutil.rmtree(root, ignore_errors=True)  # of a registration that was cut off
        (Path(work) / "model").rename(root)


def _write(path: Path, info: Any, run_id: str, folder: Path, card: Any, place: Callable[[str, str], object]) -> None:
    """MLflow's transformers flavour of the model in `folder`; `place` brings each file of it to its new name."""
    import mlflow
    import torch
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):  # the flavour wants a model's description; its weights are in files already
        model = auto.from_config(config, dtype=config.dtype)
    # MLflow asks the hub about this name, and shows it: no hub id, so that it finds nothing, and no path.
    model.name_or_path = f"runs:/{run_id}/{MODEL_FOLDER}"
    model.save_pretrained = lambda save_directory, **_: shutil.copytree(folder, save_directory, copy_function=place)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    mlflow.transformers.save_model(
        transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, device=torch.device("meta")),
        path,
        mlflow_model=info,
        task="llm/v1/chat" if tokenizer.chat_template else "llm/v1/completions",  # how `mlflow models serve` is asked
        model_card=card,
        pip_requirements=_requirements(),
    )
    (path / "LICENSE.txt").unlink(missing_ok=True)  # MLflow's guess; the card has the licence


def _requirements() -> list[str]:
    """What loads the model; without it MLflow would load the model in a child process to find out.

    Of a version such as 2.13.0+cpu only 2.13.0: registries list no builds, and MLflow warns of those it cannot compare.
    """
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in ("mlflow", "torch", "transformers")]


def _link_or_copy(source: str, target: str) -> None:
    """A second name for the same bytes; a copy where the file system has no such thing."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def _ensure_name(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
