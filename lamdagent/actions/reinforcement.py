"""Reinforcement learning with rewards that a program can check, full or LoRA.

GRPO (https://arxiv.org/abs/2402.03300) and RLOO (https://arxiv.org/abs/2402.14740).
"""

from collections.abc import Mapping
from typing import Annotated, Any

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.limits import Above, AtLeast, MultipleOf
from lamdagent.actions.methods import GRPO, RLOO, Method
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.training import Training
from lamdagent.rewards.mix import Reward, columns_of, terms

SEVERAL = AtLeast(2)
"""An answer is judged by how much better it is than others to the same prompt."""
WHOLE_GROUPS = MultipleOf("generations")


def grpo(
    context: Context,
    *,
    model: str,
    dataset: str,
    reward: Annotated[str, Reward()],
    learning_rate: float = 1e-6,
    beta: float = 0.0,
    generations: Annotated[int, SEVERAL] = 8,
    completion_length: int = 256,
    temperature: Annotated[float, Above(0.0)] = 1.0,
    steps: int = 100,
    epochs: float = 1.0,
    batch_size: Annotated[int, WHOLE_GROUPS] = 64,
    micro_batch_size: int = 8,
    warmup: float = 0.1,
    lora_rank: int = 0,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """Make answers likelier that are rewarded more than others to the same prompt, in units of their spread.

    Args:
        context: where to write, and the seed.
        model: folder.
        dataset: JSONL file with prompts and the columns that the reward reads.
        reward: a weighted sum of functions, see rewards/mix.py.
        learning_rate: see `Recipe`, as for what is not listed here.
        beta: how strongly the model is held to what it was; 0 needs no reference model.
        generations: answers to each prompt.
        completion_length: tokens of the longest answer.
        temperature: of sampling, above 0.
        steps: see `Recipe`.
        epochs: see `Recipe`.
        batch_size: answers per optimizer step, a multiple of `generations`.
        micro_batch_size: most answers in memory at once in a training step; all of a step are generated together.
        warmup: see `Recipe`.
        lora_rank: see `Recipe`.
        lora_alpha: see `Recipe`.
        lora_layers: see `Recipe`.
    """
    return context.perform(_rewarded(GRPO, locals()))


def rloo(
    context: Context,
    *,
    model: str,
    dataset: str,
    reward: Annotated[str, Reward()],
    learning_rate: float = 1e-6,
    beta: float = 0.05,
    generations: Annotated[int, SEVERAL] = 4,
    completion_length: int = 256,
    temperature: Annotated[float, Above(0.0)] = 1.0,
    steps: int = 100,
    epochs: float = 1.0,
    batch_size: Annotated[int, WHOLE_GROUPS] = 64,
    micro_batch_size: int = 8,
    warmup: float = 0.1,
    lora_rank: int = 0,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """Make answers likelier that are rewarded more than the mean of the others to the same prompt; see `grpo`."""
    return context.perform(_rewarded(RLOO, locals()))


def _rewarded(method: Method, given: Mapping[str, Any]) -> Training:
    mix = terms(given["reward"])
    options = {
        "beta": given["beta"],
        "num_generations": given["generations"],
        "max_completion_length": given["completion_length"],
        "temperature": given["temperature"],
        "reward_weights": [term.weight for term in mix],
    }
    recipe, read = Recipe.among(given, max_length=0), columns_of(given["reward"])
    return Training(method, given["model"], given["dataset"], recipe, options, further_columns=read, rewards=mix)
