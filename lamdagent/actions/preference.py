"""Learning from better and worse answers, full or LoRA.

DPO (https://arxiv.org/abs/2305.18290) and its loss variants, KTO (https://arxiv.org/abs/2402.01306), ORPO
(https://arxiv.org/abs/2403.07691).
"""

import random
from typing import Annotated, Any

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.limits import AtLeast, one_of
from lamdagent.actions.methods import DPO, KTO, ORPO
from lamdagent.actions.recipe import Recipe
from lamdagent.actions.training import Training

DPO_LOSSES = one_of(
    "sigmoid",
    "hinge",
    "ipo",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
    "sft",
)
"""TRL's, but for those that sort the rows of a micro-batch (aot, aot_unpaired: its size would decide what comes out)
and the one that needs a further setting (exo_pair)."""
KTO_LOSSES = one_of("kto", "apo_zero_unpaired")
TWO = AtLeast(KTO.least)


def dpo(
    context: Context,
    *,
    model: str,
    dataset: str,
    learning_rate: float = 5e-7,
    beta: float = 0.1,
    loss: Annotated[str, DPO_LOSSES] = "sigmoid",
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
    recipe, options = Recipe.among(locals()), {"beta": beta, "loss_type": [loss]}
    return context.perform(Training(DPO, model, dataset, recipe, options))


def kto(
    context: Context,
    *,
    model: str,
    dataset: str,
    learning_rate: float = 5e-7,
    beta: float = 0.1,
    loss: Annotated[str, KTO_LOSSES] = "kto",
    steps: int = 100,
    epochs: float = 1.0,
    batch_size: Annotated[int, TWO] = 16,
    micro_batch_size: Annotated[int, TWO] = 4,
    max_length: int = 1024,
    warmup: float = 0.1,
    lora_rank: int = 0,
    lora_alpha: int = 32,
    lora_layers: int = 0,
) -> Loaded:
    """Make chosen completions likelier and rejected ones less likely, each for itself.

    A pair is two rows here, so `batch_size` counts answers. `beta` holds the model to what it was. The mean over the
    micro-batch is part of the method: unlike elsewhere, `micro_batch_size` changes what comes out a little.
    """
    recipe, options = Recipe.among(locals()), {"beta": beta, "loss_type": loss}
    return context.perform(Training(KTO, model, dataset, recipe, options, prepare=single_answers))


def single_answers(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Each pair as a wanted and an unwanted answer, mixed: TRL would train on all wanted ones first."""
    singles = [
        {**{key: value for key, value in row.items() if key not in ("chosen", "rejected")}, "completion": row[kind]}
        | {"label": kind == "chosen"}
        for row in rows
        for kind in ("chosen", "rejected")
    ]
    random.Random(seed).shuffle(singles)
    return singles


def orpo(
    context: Context,
    *,
    model: str,
    dataset: str,
    learning_rate: float = 8e-6,
    beta: float = 0.1,
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
    """Learn the chosen completion and, weighed by `beta`, the odds against the rejected one; no reference model."""
    recipe = Recipe.among(locals())
    options = {"beta": beta, "remove_unused_columns": False}  # said outright, or TRL warns
    return context.perform(Training(ORPO, model, dataset, recipe, options))
