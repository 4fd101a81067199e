"""A LoRA adapter (https://arxiv.org/abs/2106.09685, as peft saves it) as an initial model: applied once to its base.

Its base may be an adapter itself, and so on. What comes out is a plain model, which every action takes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lamdagent.config import ModelConfig
from lamdagent.errors import UserError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def is_adapter(folder: Path) -> bool:
    """Whether there is an adapter without a whole model beside it."""
    return (folder / CONFIG).exists() and not (folder / "config.json").exists()


def own_base(folder: Path) -> str:
    """The model source that the adapter's files name as its base; empty when they name none.

    Raises:
        UserError: they cannot be read.
    """
    return str(_told(folder).get("base_model_name_or_path") or "")


def adapter_faults(folder: Path, based: bool) -> Iterator[str]:
    """Faults that keep the adapter in `folder` from being applied; `based`: the user has named its base."""
    try:
        told = _told(folder)
    except UserError as error:
        yield str(error)
        return
    if told.get("peft_type") != "LORA":
        yield f"{folder} holds an adapter of type {told.get('peft_type')}; only LORA can be applied"
    if not (folder / WEIGHTS).exists():
        yield f"{folder} has no {WEIGHTS}, and nothing else is ever read: a pickled adapter_model.bin could run code"
    if not based and not told.get("base_model_name_or_path"):
        yield f"{folder} does not say which model it belongs to; name one under models as its `base`"


def spec_of(name: str, models: Mapping[str, ModelConfig], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The source of `models[name]` as plain values, with the specs of the bases that the user names inside.

    Raises:
        UserError: a `base` is no model, or goes round in a circle.
    """
    spec = dataclasses.asdict(models[name])
    if base := models[name].base:
        if base not in models:
            raise UserError(f"models.{name}.base: there is no model {base!r}; allowed: {', '.join(models)}")
        if base in (*above, name):
            circle = " -> ".join((*above, name, base))
            raise UserError(f"models.{name}.base goes round in a circle: {circle}")
        spec["base"] = spec_of(base, models, (*above, name))
    return spec


def names(folder: Path, base: Path, base_digest: str) -> str:
    """A folder name for the adapter on its base: another one for other files."""
    files = [path for path in (folder / CONFIG, folder / WEIGHTS, *(folder / name for name in TOKENIZERS))]
    told = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.exists()]
    key = hashlib.sha256(" ".join((*told, base_digest)).encode()).hexdigest()[:12]
    return f"{folder.name}-on-{base.name}-{key}"


# This function also stands, word for word, in the scripts of rebuild/: nothing of this package in it.


def with_adapter(base: str, folder: str) -> tuple[Any, Any]:
    """The model in `base` with the adapter in `folder` merged into its weights, and its tokenizer."""
    from pathlib import Path

    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(base, dtype="auto", use_safetensors=True, local_files_only=True)
    config, generation_config = model.config, model.generation_config
    adapted: Any = PeftModel.from_pretrained(model, folder)
    with safe_open(Path(folder) / "adapter_model.safetensors", framework="pt") as file:
        given = {name for name in file.keys() if "lora_" in name}  # noqa: SIM118 - it is no dictionary
    taken = {name for name in get_peft_model_state_dict(adapted, save_embedding_layers=False) if "lora_" in name}
    if given != taken:
        odd = sorted(given ^ taken)
        raise ValueError(f"{len(odd)} of its matrices have no counterpart in the model, such as {odd[0]}")
    merged = adapted.merge_and_unload()
    merged.config, merged.generation_config = config, generation_config
    has_tokenizer = any((Path(folder) / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))
    return merged, AutoTokenizer.from_pretrained(folder if has_tokenizer else base, local_files_only=True)


def _told(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read ({error}); save the adapter again") from error
    return told if isinstance(told, dict) else {}
