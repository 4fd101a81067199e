"""Direct preference optimisation (https://arxiv.org/abs/2305.18290) and its loss variants, full or LoRA."""

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.training import Recipe, Training
from lamdagent.objects.dataset import COLUMNS


def dpo(
    context: Context,
    *,
    model: str,
    dataset: str,
    learning_rate: float = 5e-7,
    beta: float = 0.1,
    loss: str = "sigmoid",
    steps: int = 100,
    epochs: float = 1.0,
    batch_size: int = 16,
    micro_batch_size: int = 2,
    max_length: int = 1024,
    warmup: float = 0.1,
    lora_rank: int = 0,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """Prefer the chosen completion to the rejected one, held by `beta` to the model as it was.

    `loss` is one of TRL's: sigmoid (DPO), hinge (SLiC), ipo, apo_zero, ... See `Recipe` for the rest.
    """
    recipe = Recipe(
        learning_rate=learning_rate,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        max_length=max_length,
        warmup=warmup,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_layers=lora_layers,
    )
    options = {"beta": beta, "loss_type": [loss]}
    return context.perform(Training("DPO", model, dataset, COLUMNS["preference"], recipe, options, compares=True))
