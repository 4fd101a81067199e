"""A network before and after its training: in 4 bits, the parts that get an adapter, a plain model again."""

from collections.abc import Mapping
from typing import Any

from lamdagent.errors import ActionFailed

QUANTIZATION: Mapping[str, Any] = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}
"""Arguments of transformers' BitsAndBytesConfig, as in QLoRA (https://arxiv.org/abs/2305.14314, section 3)."""


def quantized_model(folder: str) -> Any:
    """The model in 4 bits, on the GPU if there is one; elsewhere bitsandbytes works too, but saves no time.

    Raises:
        ActionFailed: bitsandbytes is not installed.
    """
    import torch
    import transformers

    library: Any = transformers
    try:
        settings = library.BitsAndBytesConfig(**QUANTIZATION)
        place = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
        return library.AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=settings, device_map=place, local_files_only=True, use_safetensors=True
        )
    except ImportError as error:
        advice = "pip install 'lamdagent[qlora]', or use the LoRA action of the same method instead"
        raise ActionFailed(f"QLoRA needs bitsandbytes ({error}): {advice}.", kind="error") from error


# The next three functions also stand, word for word, in the scripts of rebuild/: nothing of this package in them.


def linear_layers(model: Any) -> list[str]:
    """Names of every linear layer but the head; peft's own "all-linear" cannot be combined with chosen layers."""
    import torch

    head = model.get_output_embeddings()
    found = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part is not head]
    return sorted({name.rsplit(".", 1)[-1] for name in found})


def last_layers(model: Any, count: int) -> list[int] | None:
    """Numbers of the last `count` layers; None, meaning all, for 0."""
    layers = model.config.get_text_config().num_hidden_layers
    return list(range(max(0, layers - count), layers)) if count else None


def restored(model: Any, config: Any, generation_config: Any, dtype: Any) -> Any:
    """The trained weights as a plain model again: trainers patch its forward and rewrite its token ids."""
    vars(model).pop("forward", None)
    model.activation_checkpointing_disable()
    model.config, model.generation_config = config, generation_config
    return model.to(dtype)
