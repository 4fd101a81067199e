"""The winner in the Model Registry, loadable with `mlflow.transformers.load_model`. Runs where torch lives."""

import logging
from collections.abc import Callable
from typing import Any

from lamdagent.tracking.connect import open_client
from lamdagent.tracking.lineage import model_id_of
from lamdagent.tracking.schema import CHAMPION_ALIAS

HEAD = "---\nlibrary_name: transformers\ntags: [lamdagent]\n---\n"
"""The metadata block that every card of the hub begins with."""


def register(
    report: Callable[..., None], *, uri: str, run_id: str, folder: str, name: str, description: str = ""
) -> str:
    """Register the run's model under `name`, alias `champion`; return the version. A job's target, see executor.Job.

    The run's own LoggedModel gets the flavour's files, so that version, model, run and lineage are one thing in
    MLflow. The run itself is not touched. A model that is registered already only gets the alias back.

    Args:
        report: Unused; every job has it.
        uri: The store, `Store.uri`.
        run_id: A finished base or action run.
        folder: Its weights, `Store.model_folder(run_id)`.
        name: Registered model; made if missing.
        description: The model card, Markdown: shown on the version's page and kept beside the weights.
    """
    client = open_client(uri)
    model_id = model_id_of(client.get_run(run_id))
    if model_id is None:
        raise ValueError(f"The run {run_id} has no model to register.")
    version = _known_version(client, name, model_id) or _new_version(
        client, uri, run_id, model_id, folder, name, description
    )
    if description:
        client.update_model_version(name, version, description)
    client.set_registered_model_alias(name, CHAMPION_ALIAS, version)
    return version


def _known_version(client: Any, name: str, model_id: str) -> str | None:
    """The version that `model_id` already is. Over REST only `source` tells."""
    versions = client.search_model_versions(f"name = '{name}'")
    return next((str(v.version) for v in versions if v.source == f"models:/{model_id}"), None)


def _new_version(client: Any, uri: str, run_id: str, model_id: str, folder: str, name: str, card: str) -> str:
    """Write the transformers flavour and make it a version."""
    import mlflow
    import torch
    import transformers
    from huggingface_hub import ModelCard

    logging.getLogger("mlflow.transformers").setLevel(logging.ERROR)  # "no license on the hub": there is no hub
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    parts = {
        "model": transformers.AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto"),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder),
    }
    mlflow.transformers.log_model(
        parts,
        model_id=model_id,
        task="text-generation",
        model_card=ModelCard(HEAD + card, ignore_metadata_errors=True),  # without one MLflow asks the hub
        # Said here: MLflow would load the model in a child process to find them out.
        pip_requirements=[f"{module.__name__}=={module.__version__}" for module in (mlflow, torch, transformers)],
    )
    _ensure_name(client, name)
    version = client.create_model_version(name, f"models:/{model_id}", run_id=run_id, model_id=model_id)
    return str(version.version)


def _ensure_name(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
