"""Rules for settings in combination, before anything is looked at. Each alone is checked when it is read."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from lamdagent.config import Config
from lamdagent.errors import UserError
from lamdagent.evaluation.backends import backend_faults
from lamdagent.execution.registry import executor_maker
from lamdagent.selection.registry import policy_kind


def rule_faults(config: Config) -> Iterator[str]:
    """One sentence for each rule that the settings break."""
    for group, wanted in (("models", "model"), ("actions", "action"), ("tasks", "task")):
        if not getattr(config, group):
            yield f"{group}: none given; pick some, such as +{wanted}=..., or a whole experiment: +experiment=tooluse"
    yield from _refused(executor_maker, config.execution)
    yield from _policy(config)
    if (config.execution.address or "").startswith("ray://"):
        yield "execution.address: Ray's client (ray://) is not enough; run on a machine of the cluster, with auto"
    if all(value is None for value in dataclasses.asdict(config.budget).values()):
        yield "budget: every limit is null, the search would never end; set budget.trials or another one"
    yield from _ladder(config)
    yield from backend_faults(config.evaluation.backend)
    if config.tasks and not sum(task.weight for task in config.tasks.values()) > 0:
        yield "tasks: the weights add up to nothing; give at least one task a weight above 0"


def _policy(config: Config) -> Iterator[str]:
    try:
        kind = policy_kind(config.agent)
    except UserError as error:
        yield str(error)
        return
    if kind.needs_llm and not config.agent.model:
        wanted = "one in litellm's form, such as agent.model=openai/gpt-4o"
        yield f"agent.model: not given, but agent={config.agent.kind} needs {wanted}"


def _refused(check: Callable[[Any], object], value: Any) -> Iterator[str]:
    try:
        check(value)
    except UserError as error:
        yield str(error)


def _ladder(config: Config) -> Iterator[str]:
    rungs = config.ladder.rungs
    if rungs and not (len(rungs) > 1 and all(a < b for a, b in itertools.pairwise([0.0, *rungs])) and rungs[-1] <= 1):
        yield f"ladder.rungs: got {rungs}, wanted two or more rising data fractions up to 1, such as [0.1, 0.3, 1.0]"
    if rungs and config.data_fraction != 1:
        yield f"data_fraction: got {config.data_fraction}, but ladder.rungs says which fractions are used; leave it out"
    if rungs and config.memory.any_fraction:
        yield "memory.any_fraction: got true, but a ladder compares the pipelines of each rung alone; leave it out"
