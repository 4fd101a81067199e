"""The action that takes the kind of data of steps.py: TRL's SFT trainer gets it as the kind says."""

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.methods import Method, performs
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.training import Training

ON_STEPS = Method("sft", "trl.SFTTrainer", "tests.extending.steps:STEPS")


@performs(ON_STEPS)
def sft_steps(context: Context, *, model: str, dataset: str, learning_rate: float = 1e-5, steps: int = 100) -> Loaded:
    """Supervised fine-tuning on the steps that are right."""
    sizes = {"epochs": 1.0, "batch_size": 4, "micro_batch_size": 4, "max_length": 64, "warmup": 0.0}
    recipe = Recipe.among(locals(), **sizes, lora_rank=0, lora_alpha=32, lora_layers=0)
    return context.perform(Training(ON_STEPS, model, dataset, recipe, {"completion_only_loss": True}))
