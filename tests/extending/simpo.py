"""A training method: SimPO (https://arxiv.org/abs/2405.14734) by TRL's experimental CPO trainer."""

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.methods import Method, performs
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.training import Training

SIMPO = Method("simpo", "trl.experimental.cpo.CPOTrainer", "preference", rows=2)


@performs(SIMPO)
def simpo(
    context: Context,
    *,
    model: str,
    dataset: str,
    learning_rate: float = 1e-6,
    margin: float = 0.5,
    steps: int = 100,
    batch_size: int = 16,
    micro_batch_size: int = 2,
    max_length: int = 1024,
    lora_rank: int = 0,
) -> Loaded:
    """Preference pairs without a reference model; `margin` is the gap that the better answer must have."""
    recipe = Recipe.among(locals(), epochs=1.0, warmup=0.1, lora_alpha=32, lora_layers=0)
    options = {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": margin, "remove_unused_columns": False}
    return context.perform(Training(SIMPO, model, dataset, recipe, options))
