"""What single settings may be, checked before anything is looked at."""

import dataclasses
import importlib
import importlib.util
import itertools
import math
from collections.abc import Iterator

from lamdagent.config import Config
from lamdagent.guards.preflight import MODES
from lamdagent.selection.baselines import BASELINES

POLICIES = ("auto", "hybrid", "llm", "surrogate", "tpe", "random", *BASELINES)


EXECUTIONS = ("local", "inline", "ray")


def range_faults(config: Config) -> Iterator[str]:
    """One sentence for each setting that is out of its range."""
    for group, wanted in (("models", "model"), ("actions", "action"), ("tasks", "task")):
        if not getattr(config, group):
            yield f"{group}: none given; pick some, such as +{wanted}=..., or a whole experiment: +experiment=tooluse"
    yield from choice_faults("agent.kind", config.agent.kind, POLICIES)
    yield from choice_faults("agent.structured", config.agent.structured, ("auto", "on", "off"))
    yield from choice_faults("execution.kind", config.execution.kind, EXECUTIONS)
    yield from choice_faults("execution.memory_check", config.execution.memory_check, MODES)
    yield from choice_faults("evaluation.overlap", config.evaluation.overlap, MODES)
    if (config.execution.address or "").startswith("ray://"):
        yield "execution.address: Ray's client (ray://) is not enough; run on a machine of the cluster, with auto"
    if config.agent.kind in ("llm", "hybrid") and not config.agent.model:
        wanted = "one in litellm's form, such as agent.model=openai/gpt-4o"
        yield f"agent.model: not given, but agent={config.agent.kind} needs {wanted}"
    for key, value in dataclasses.asdict(config.budget).items():
        if value is not None and not value > 0:
            yield f"budget.{key}: got {value}, wanted more than 0, or null for no limit"
    if all(value is None for value in dataclasses.asdict(config.budget).values()):
        yield "budget: every limit is null, the search would never end; set budget.trials or another one"
    if not 0 < config.data_fraction <= 1:
        yield f"data_fraction: got {config.data_fraction}, wanted more than 0 and at most 1"
    yield from _ladder(config)
    yield from _backend(config.evaluation.backend)
    yield from _least(config)
    if config.tasks and not sum(t.weight for t in config.tasks.values() if math.isfinite(t.weight)) > 0:
        yield "tasks: the weights add up to nothing; give at least one task a weight above 0"


def _ladder(config: Config) -> Iterator[str]:
    rungs = config.ladder.rungs
    if rungs and not (len(rungs) > 1 and all(a < b for a, b in itertools.pairwise([0.0, *rungs])) and rungs[-1] <= 1):
        yield f"ladder.rungs: got {rungs}, wanted two or more rising data fractions up to 1, such as [0.1, 0.3, 1.0]"
    if rungs and config.data_fraction != 1:
        yield f"data_fraction: got {config.data_fraction}, but ladder.rungs says which fractions are used; leave it out"
    if rungs and config.memory.any_fraction:
        yield "memory.any_fraction: got true, but a ladder compares the pipelines of each rung alone; leave it out"


def _backend(name: str) -> Iterator[str]:
    yield from choice_faults("evaluation.backend", name, ("hf", "vllm"))
    if name == "vllm" and importlib.util.find_spec("vllm") is None:
        yield "evaluation.backend: vllm is not installed here; `pip install vllm` on a machine with a GPU, or take hf"


def _least(config: Config) -> Iterator[str]:
    limits = {
        "search.test_top": (config.search.test_top, 1),
        "search.max_depth": (config.search.max_depth, 1),
        "search.failures_in_a_row": (config.search.failures_in_a_row, 1),
        "memory.tokens": (config.memory.tokens, 100),
        "champion.beyond": (config.champion.beyond, 0),
        "champion.seeds": (config.champion.seeds, 0),
        "ladder.keep": (config.ladder.keep, 1),
        "transfer.top": (config.transfer.top, 1),
        "transfer.spread": (config.transfer.spread, 0),
        "retention.keep_best": (config.retention.keep_best, 1),
        "execution.cpus": (config.execution.cpus, 0.01),
        "execution.gpus": (config.execution.gpus, 0),
        "execution.at_once": (config.execution.at_once, 1),
        "execution.memory_gb": (config.execution.memory_gb, 0.01),
        "evaluation.batch_size": (config.evaluation.batch_size, 1),
        "agent.retries": (config.agent.retries, 0),
        "agent.corrections": (config.agent.corrections, 0),
        "agent.max_options": (config.agent.max_options, 2),
        "agent.timeout_s": (config.agent.timeout_s, 0.01),
        "agent.prompt_tokens": (config.agent.prompt_tokens, 500),
        "agent.max_tokens": (config.agent.max_tokens, 16),
    }
    for path, (value, least) in limits.items():
        if value is not None and value < least:
            yield f"{path}: got {value}, wanted at least {least}"


def choice_faults(path: str, value: str, allowed: tuple[str, ...]) -> Iterator[str]:
    """A sentence when `value` is not among `allowed`."""
    if value not in allowed:
        yield f"{path}: got {value!r}; allowed: {', '.join(allowed)}"
