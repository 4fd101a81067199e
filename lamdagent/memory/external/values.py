"""Trainers, scores and hyperparameters of external runs in this search's words. Pure functions of what they logged."""

import math
from collections.abc import Mapping, Sequence

from lamdagent.actions.action import Scalar
from lamdagent.actions.methods import METHODS
from lamdagent.config import ForeignScoreConfig
from lamdagent.evaluation.task import Task
from lamdagent.text import one_line

TRAINERS: Mapping[str, str] = {  # from the most special to the plainest; the params are TRL's own
    "center_rewards_coefficient": "reward",
    **{sign: method.name for method in METHODS.values() for sign in method.signs},
    "per_device_train_batch_size": "trainer",
}
"""A param that gives a trainer away -> our word for what it does; `trainer`: the Hugging Face Trainer, of any loss."""
UNSURE = 0.05
"""Standard error, as a share of the range, of a score that comes without one."""
UNTOLD = 0.3
"""The same for a task that they did not measure: the base's score stands in for it."""


def trainer_of(params: Mapping[str, str]) -> str:
    """Kind of trainer behind the params, in TRAINERS' words; empty when they are no trainer's."""
    return next((word for key, word in TRAINERS.items() if key in params), "")


def normalized(value: float, given: ForeignScoreConfig, task: Task) -> float:
    """Their value on the task's own scale: range onto range, turned round where the directions differ, cut at its ends.

    >>> normalized(80.0, ForeignScoreConfig("acc", 0.0, 100.0), Task("t", "t", "m", low=0.0, high=1.0))
    0.8
    """
    share = min(1.0, max(0.0, (value - given.low) / (given.high - given.low)))
    share = share if given.higher_is_better == task.higher_is_better else 1.0 - share
    return task.low + share * (task.high - task.low)


def product(texts: Sequence[str], like: Scalar) -> Scalar | None:
    """The value of `texts` in the type of `like`, multiplied if there are several; None when it makes no sense."""
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(texts[0].lower())
    if isinstance(like, str):
        return one_line(texts[0].strip("[]'\" "), 60)  # Python's list of one, as TRL logs it
    try:
        value = math.prod(float(text) for text in texts)
    except ValueError:
        return None
    if not (math.isfinite(value) and value >= 0):  # -1 is the trainer's "not set"
        return None
    return int(value) if isinstance(like, int) and value == int(value) else value
