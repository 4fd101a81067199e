"""A weighted sum of reward functions written as text: `lamdagent.rewards.answers:same_answer + 0.2 * my_module:polite`.

A reward function is TRL's (https://huggingface.co/docs/trl/grpo_trainer#using-a-custom-reward-function):

    def polite(completions, tone, **_):
        return [float(tone in reply(completion)) for completion in completions]

It gets lists with one element per answer and returns one number for each. Its named parameters are columns of the
dataset, besides TRL's own: prompts, completions, completion_ids, trainer_state, log_extra, log_metric, environments.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamdagent.errors import UserError
from lamdagent.functions import load_function

OF_TRL = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""Arguments that TRL gives every reward function besides the dataset's columns."""
FORM = "[weight *] module:function [+ [weight *] module:function ...]"


@dataclass(frozen=True)
class Term:
    """One reward function of a sum."""

    weight: float
    function: str
    """`module:function`."""

    def load(self) -> Callable[..., list[float]]:
        """The function itself.

        Raises:
            UserError: there is none, or it does not take what TRL gives.
        """
        found = load_function(self.function)
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(found).parameters.values()):
            raise UserError(f"{self.function} must end its parameters with **_, since TRL gives it every column")
        return found  # type: ignore[no-any-return]

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the dataset that the function cannot do without."""
        parameters = inspect.signature(self.load()).parameters.values()
        named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.default is p.empty]
        return frozenset(named) - set(OF_TRL)


def terms(text: str) -> tuple[Term, ...]:
    """The parts of the sum, in order.

    Raises:
        ValueError: the text is no sum, a weight is no number, or every weight is 0.
    """
    found = tuple(_term(part.strip(), text) for part in text.split(" + "))
    if not any(term.weight for term in found):
        raise ValueError(f"every weight in {text!r} is 0")
    return found


def _term(part: str, text: str) -> Term:
    weight, star, function = (piece.strip() for piece in part.rpartition("*"))
    try:
        number = float(weight) if star else 1.0
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"the weight {weight!r} in {text!r} is no number; the form is {FORM}")
    if not all(function.partition(":")):
        raise ValueError(f"{part!r} in {text!r} is no reward; the form is {FORM}")
    return Term(number, function)


def columns_of(text: str) -> tuple[str, ...]:
    """The columns that the sum's functions read, sorted."""
    return tuple(sorted(frozenset().union(*(term.columns for term in terms(text)))))


class Reward:
    """The limit of a hyperparameter that holds such a text."""

    def fault(self, value: Any, grid: Mapping[str, Sequence[Any]]) -> str:
        """See `limits.Limit`."""
        try:
            columns_of(value)
        except (UserError, ValueError) as error:
            return str(error)
        return ""

    def columns(self, value: Any) -> frozenset[str]:
        """See `limits.Limit`."""
        return frozenset(columns_of(value))
