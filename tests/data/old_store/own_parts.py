"""What a user of the old store had written: two models of 12,000 weights and an action that fails.

Stored runs name these functions. The weights come from Python's own generator: the same on every machine.
"""

import random
from pathlib import Path
from typing import Any


def one(folder: Path) -> None:
    """Write the first initial model into `folder`."""
    _build(folder, seed=1)


def two(folder: Path) -> None:
    """Write another initial model of the same shape into `folder`."""
    _build(folder, seed=2)


def broken(context: Any, *, model: str) -> Any:
    """An action that never makes a model."""
    raise ValueError("the teacher is ill")


def _build(folder: Path, seed: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lamdagent import pico

    pico.build(folder)  # for its tokenizer
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig.from_pretrained(folder)
    config.update({**shape, **heads})
    model: Any = LlamaForCausalLM(config).to(torch.bfloat16)
    numbers = random.Random(seed)
    for weights in model.parameters():
        if weights.dim() > 1:
            values = [numbers.uniform(-0.15, 0.15) for _ in range(weights.numel())]
            weights.data.copy_(torch.tensor(values).reshape(weights.shape))
    model.save_pretrained(folder)
