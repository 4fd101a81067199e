"""Supervised fine-tuning (https://arxiv.org/abs/2203.02155, step 1), full or LoRA (https://arxiv.org/abs/2106.09685)."""

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.methods import PACKED, SFT
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.training import Training

OPTIONS = {"completion_only_loss": True}
PACKING = {**OPTIONS, "packing": True}
"""Best fit, nothing is attended to across rows (TRL's `bfd`)."""


def sft(
    context: Context,
    *,
    model: str,
    dataset: str,
    learning_rate: float = 1e-5,
    steps: int = 200,
    epochs: float = 1.0,
    batch_size: int = 16,
    micro_batch_size: int = 4,
    max_length: int = 1024,
    warmup: float = 0.1,
    lora_rank: int = 0,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """Learn the completions; the prompts carry no loss. See `Recipe` for the hyperparameters."""
    recipe = Recipe.among(locals())
    return context.perform(Training(SFT, model, dataset, recipe, OPTIONS))


def sft_packed(
    context: Context,
    *,
    model: str,
    dataset: str,
    learning_rate: float = 1e-5,
    steps: int = 0,
    epochs: float = 1.0,
    batch_size: int = 8,
    micro_batch_size: int = 1,
    max_length: int = 2048,
    warmup: float = 0.1,
    lora_rank: int = 0,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """As `sft`, with several rows in each sequence of `max_length` tokens, so that none are spent on padding.

    `batch_size` and `micro_batch_size` count such sequences: by how many rows a step learns depends on their length.
    Those in memory at once are one sequence to the attention, so more than one save launches and cost attention.
    A function of its own, since one more hyperparameter of `sft` would make other actions of all that have been done.
    """
    recipe = Recipe.among(locals())
    return context.perform(Training(PACKED, model, dataset, recipe, PACKING))
