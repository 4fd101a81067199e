"""The Pareto front over tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from lamdagent.evaluation.task import Task

Node = Mapping[str, Any]
"""A model with `id`, `score` and `scores`: task -> (value, stderr)."""


def pareto_front(nodes: Sequence[Node], tasks: Sequence[Task]) -> list[str]:
    """Ids of the nodes that no other node equals or beats on every task and beats on one; needs two tasks."""
    signs = {task.name: 1 if task.higher_is_better else -1 for task in tasks}
    whole = [n for n in nodes if n["score"] is not None and all(name in n["scores"] for name in signs)]
    values = {n["id"]: [sign * n["scores"][name][0] for name, sign in signs.items()] for n in whole}
    front: list[str] = []
    # What beats a node has a greater sum, so it, or what beats it in turn, is already on the front.
    for run_id in sorted(values, key=lambda run_id: -sum(values[run_id])) if len(signs) > 1 else ():
        if not any(_beats(values[other], values[run_id]) for other in front):
            front.append(run_id)
    return front


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
