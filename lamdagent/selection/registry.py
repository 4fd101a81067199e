"""From the configuration to the agent: a policy and, with an LLM, the memory update."""

from collections.abc import Callable
from dataclasses import dataclass

from lamdagent.config import Config
from lamdagent.enumeration.space import ActionSpace
from lamdagent.evaluation.task import Task
from lamdagent.llm.client import Client, ClientSettings
from lamdagent.llm.templates import LLMSettings
from lamdagent.llm.types import Trace
from lamdagent.memory.trial import History
from lamdagent.selection.baselines import BASELINES
from lamdagent.selection.policy import Policy
from lamdagent.selection.random_policy import RandomPolicy
from lamdagent.selection.surrogate import SurrogatePolicy
from lamdagent.selection.tpe import TPEPolicy


@dataclass(frozen=True)
class Notes:
    """A memory update."""

    text: str
    usd: float
    traces: tuple[str, ...]


Reflect = Callable[[History, str, ActionSpace], Notes]
"""(history, old notes, space) -> new notes."""


@dataclass(frozen=True)
class Agent:
    """Who chooses and who remembers."""

    policy: Policy
    name: str
    """One line for the user."""
    reflect: Reflect | None = None
    """None without an LLM."""
    spent_before: Callable[[float], None] = lambda usd: None
    """Told what earlier processes of the search have paid the LLM, USD: the bill goes on from there."""


def make_agent(config: Config, tasks: tuple[Task, ...], trace: Trace | None = None) -> Agent:
    """`auto` is the hybrid when an LLM is named, the surrogate otherwise."""
    settings = config.agent
    kind = settings.kind
    if kind == "auto":
        kind = "hybrid" if settings.model else "surrogate"
    if kind == "random":
        return Agent(RandomPolicy(), "random draws choose (agent=random)")
    if kind == "surrogate":
        hint = "; agent.model=<LLM> lets an LLM choose" if settings.kind == "auto" else ""
        return Agent(SurrogatePolicy(), f"the built-in surrogate chooses, no LLM is asked{hint}")
    if kind == "tpe":
        return Agent(TPEPolicy(), "the tree-structured Parzen estimator of Optuna chooses (agent=tpe)")
    if kind in BASELINES:
        return Agent(BASELINES[kind], f"nobody chooses: the paper's baseline (agent={kind})")
    return _llm_agent(config, kind, tasks, trace)


def llm_settings(config: Config, tasks: tuple[Task, ...]) -> LLMSettings:
    """The prompts' settings; also what `dry_run` shows them with."""
    agent = config.agent
    return LLMSettings(
        exploration=agent.exploration,
        debias=agent.debias,
        corrections=agent.corrections,
        max_options=agent.max_options,
        prompt_tokens=agent.prompt_tokens,
        reflection=agent.reflection,
        goal="\n".join(f"- {t.name}: weight {t.weight:g}, {_direction(t)}" for t in tasks),
    )


def _direction(task: Task) -> str:
    return f"{task.metric}, {'higher' if task.higher_is_better else 'lower'} is better, {task.low:g} to {task.high:g}"


def _llm_agent(config: Config, kind: str, tasks: tuple[Task, ...], trace: Trace | None) -> Agent:
    from lamdagent.memory.reflection import reflect
    from lamdagent.selection.hybrid import HybridPolicy
    from lamdagent.selection.llm import LLMPolicy

    agent = config.agent
    settings = llm_settings(config, tasks)
    given = ClientSettings(
        model=agent.model or "",
        api_base=agent.api_base or "",
        temperature=agent.temperature,
        timeout_s=agent.timeout_s,
        attempts=agent.retries + 1,
        api_key_env=agent.api_key_env or "",
        structured=agent.structured,  # type: ignore[arg-type]  # checked by plan.py
        max_tokens=agent.max_tokens,
        usd_limit=config.budget.usd,
        input_usd_per_million=agent.input_usd_per_million,
        output_usd_per_million=agent.output_usd_per_million,
    )
    client = Client(given, trace) if trace else Client(given)

    def update(history: History, old: str, space: ActionSpace) -> Notes:
        usd, calls = client.usage.usd, len(client.usage.traces)
        text = reflect(client, history, old, space, settings)
        return Notes(text, client.usage.usd - usd, tuple(client.usage.traces[calls:]))

    surrogate = SurrogatePolicy()
    policy: Policy = LLMPolicy(client, surrogate, settings)
    name = f"{agent.model} chooses, the surrogate where it fails"
    if kind == "hybrid":
        policy = HybridPolicy(client, surrogate, settings)
        name = f"{agent.model} chooses from the surrogate's shortlist or overrules it"

    def spent_before(usd: float) -> None:
        client.usage.usd += usd

    return Agent(policy, name, update if agent.reflection else None, spent_before)
