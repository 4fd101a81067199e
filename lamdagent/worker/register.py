"""The winner goes to the Model Registry: a job, since the flavour's files are written where torch lives."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lamdagent.tracking.registry import Place, register_version
from lamdagent.tracking.schema import MODEL_FOLDER


def register(report: Callable[..., None], *, uri: str, run_id: str, folder: str, name: str, card: str) -> str:
    """Register the run's model under `name`, alias `champion`; return the version. A job's target, see executor.Job.

    Weights are never loaded. See `registry.register_version` for what happens in the store.

    Args:
        report: Unused; every job has it.
        uri: The store, `RunStore.uri`.
        run_id: A finished base or action run.
        folder: Its weights, `RunStore.weights`.
        name: Registered model; made if missing.
        card: The model card with its metadata block.
    """
    from huggingface_hub import ModelCard

    content = ModelCard(card, ignore_metadata_errors=True)
    return register_version(uri, run_id, name, content, partial(_described, run_id, Path(folder)))


def _described(run_id: str, folder: Path, place: Place) -> Any:
    """A pipeline that describes the model in `folder`; saving it brings each of the model's files to `place`."""
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
    return transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, device=torch.device("meta"))
