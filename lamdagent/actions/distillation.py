"""Learning from a better model of the same vocabulary, full or LoRA (on-policy: https://arxiv.org/abs/2306.13649)."""

from typing import Annotated

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.limits import Above, Between
from lamdagent.actions.methods import DISTILL
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.training import Training


def distill(
    context: Context,
    *,
    model: str,
    teacher: str,
    dataset: str,
    learning_rate: float = 1e-6,
    beta: Annotated[float, Between(0.0, 1.0)] = 1.0,
    completion_length: int = 256,
    temperature: Annotated[float, Above(0.0)] = 1.0,
    steps: int = 100,
    epochs: float = 1.0,
    batch_size: int = 16,
    micro_batch_size: int = 4,
    warmup: float = 0.1,
    lora_rank: int = 0,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """Come nearer, token by token of its own answers, to what the teacher would have said next.

    Args:
        context: where to write, and the seed.
        model: folder of the student.
        teacher: folder of a model with the same tokens.
        dataset: JSONL file with prompts.
        learning_rate: see `Recipe`, as for what is not listed here.
        beta: the divergence, [0, 1]: 0 = cover all that the teacher might say (forward KL), 1 = keep to what it would
            most likely say (reverse KL), between them a mixture.
        completion_length: tokens of the longest answer.
        temperature: of sampling and of both models' distributions, above 0.
        steps: see `Recipe`.
        epochs: see `Recipe`.
        batch_size: see `Recipe`.
        micro_batch_size: see `Recipe`; all answers of a step are generated together.
        warmup: see `Recipe`.
        lora_rank: see `Recipe`.
        lora_alpha: see `Recipe`.
        lora_layers: see `Recipe`.
    """
    recipe = Recipe.among(locals(), max_length=0)
    options = {"beta": beta, "max_completion_length": completion_length, "temperature": temperature}
    return context.perform(Training(DISTILL, model, dataset, recipe, options, teacher=teacher))
