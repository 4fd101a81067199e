"""Inputs of each merge method of mergekit, as plain values: the driver writes merges down without loading mergekit.

A test holds METHODS against mergekit's own registry. `passthrough` is left out: it stacks layers of one model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lamdagent.errors import ActionFailed


@dataclass(frozen=True)
class Method:
    """Inputs of one merge method besides its parameters."""

    base: Literal["none", "any", "ancestor", "first"] = "none"
    """`ancestor`: one more model, whose differences to the others are merged; `any`: such a one or none; `first`: the
    first of the models itself, which the others change; `none`: there is none."""
    most: int | None = None
    """Most models, the base not counted; None = any number. The fewest are two."""
    weighed: bool = False
    """Whether each model has a weight of its own."""

    def with_base(self, base: str) -> bool:
        """Whether `base` is a model besides the others."""
        return self.base == "ancestor" or (self.base == "any" and bool(base))


METHODS = {
    "linear": Method(weighed=True),
    "slerp": Method("first", 2),
    "nuslerp": Method("any", 2, weighed=True),
    "multislerp": Method("any", weighed=True),
    "karcher": Method(),
    "ties": Method("ancestor", weighed=True),
    "dare_ties": Method("ancestor", weighed=True),
    "dare_linear": Method("ancestor", weighed=True),
    "task_arithmetic": Method("ancestor", weighed=True),
    "breadcrumbs": Method("ancestor", weighed=True),
    "breadcrumbs_ties": Method("ancestor", weighed=True),
    "della": Method("ancestor", weighed=True),
    "della_linear": Method("ancestor", weighed=True),
    "model_stock": Method("ancestor"),
    "sce": Method("ancestor"),
    "ram": Method("ancestor"),
    "ramplus_tl": Method("ancestor"),
    "nearswap": Method("first", 2),
    "arcee_fusion": Method("first", 2),
}
"""Every method of mergekit 0.1.5 that merges two or more models."""

MODULES = ("lamdagent.actions.merging", "lamdagent.actions.interpolation", "lamdagent.actions.task_vectors")
"""Modules of the action functions that merge."""


def merges(function: str) -> bool:
    """Whether the action function at `module:name` is a merge of this package."""
    return function.partition(":")[0] in MODULES


def check_call(method: str, models: Sequence[str], base: str, allowed: Sequence[str] = tuple(METHODS)) -> None:
    """Refuse what the method cannot take.

    Raises:
        ActionFailed: kind `bad_data`, with what it takes.
    """
    if method not in allowed:
        raise ActionFailed(f"No merge method {method!r}; there are {', '.join(allowed)}.", kind="bad_data")
    takes = METHODS[method]
    if len(models) < 2 or (takes.most and len(models) > takes.most):
        wanted = f"exactly {takes.most}" if takes.most else "at least 2"
        raise ActionFailed(f"{method} takes {wanted} models, got {len(models)}.", kind="bad_data")
    if takes.base == "ancestor" and not base:
        raise ActionFailed(f"{method} needs a base that the models descend from, got none.", kind="bad_data")
