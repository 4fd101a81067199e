"""QLoRA (https://arxiv.org/abs/2305.14314): adapters learn beside weights in 4 bits, with bitsandbytes.

What comes out is a full model in the precision it had: the adapter is merged into the weights as they were. It runs on
a CPU too, but is of use on a GPU only: the YAML files of these actions ask for one (`needs`).
"""

from typing import Annotated

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.limits import AtLeast
from lamdagent.actions.methods import DPO_QLORA, SFT_QLORA
from lamdagent.actions.preference import DPO_LOSSES
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.sft import OPTIONS
from lamdagent.actions.training import Training

RANK = AtLeast(1)
"""Weights in 4 bits cannot be trained themselves."""


def sft_qlora(
    context: Context,
    *,
    model: str,
    dataset: str,
    learning_rate: float = 2e-4,
    steps: int = 200,
    epochs: float = 1.0,
    batch_size: int = 16,
    micro_batch_size: int = 4,
    max_length: int = 1024,
    warmup: float = 0.1,
    lora_rank: Annotated[int, RANK] = 16,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """As `sft.sft` with LoRA, in a third of the memory."""
    recipe = Recipe.among(locals())
    return context.perform(Training(SFT_QLORA, model, dataset, recipe, OPTIONS))


def dpo_qlora(
    context: Context,
    *,
    model: str,
    dataset: str,
    learning_rate: float = 5e-6,
    beta: float = 0.1,
    loss: Annotated[str, DPO_LOSSES] = "sigmoid",
    steps: int = 100,
    epochs: float = 1.0,
    batch_size: int = 16,
    micro_batch_size: int = 2,
    max_length: int = 1024,
    warmup: float = 0.1,
    lora_rank: Annotated[int, RANK] = 16,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """As `preference.dpo` with LoRA, in a third of the memory; the reference is the model in 4 bits too."""
    recipe, options = Recipe.among(locals()), {"beta": beta, "loss_type": [loss]}
    return context.perform(Training(DPO_QLORA, model, dataset, recipe, options))
