"""From the configuration to the agent: a policy and, with an LLM, the memory update."""

from collections.abc import Callable
from dataclasses import dataclass

from lamdagent.config import Config
from lamdagent.enumeration import ActionSpace
from lamdagent.evaluation.task import Task
from lamdagent.selection.calls import Trace
from lamdagent.selection.client import Client, ClientSettings
from lamdagent.selection.policy import Policy
from lamdagent.selection.prompting import LLMSettings
from lamdagent.selection.random import RandomPolicy
from lamdagent.selection.surrogate import SurrogatePolicy
from lamdagent.trial import History


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


def make_agent(config: Config, tasks: tuple[Task, ...], trace: Trace | None = None) -> Agent:
    """`auto` is the LLM when a model is named, the surrogate otherwise."""
    settings = config.agent
    kind = settings.kind
    if kind == "auto":
        kind = "llm" if settings.model else "surrogate"
    if kind == "random":
        return Agent(RandomPolicy(), "random draws choose (agent=random)")
    if kind == "surrogate":
        hint = "; agent.model=<LLM> lets an LLM choose" if settings.kind == "auto" else ""
        return Agent(SurrogatePolicy(), f"the built-in surrogate chooses, no LLM is asked{hint}")
    return _llm_agent(config, tasks, trace)


def llm_settings(config: Config, tasks: tuple[Task, ...]) -> LLMSettings:
    """The prompts' settings; also what `dry_run` shows them with."""
    agent = config.agent
    return LLMSettings(
        exploration=agent.exploration,
        debias=agent.debias,
        corrections=agent.corrections,
        max_options=agent.max_options,
        reflection=agent.reflection,
        goal="\n".join(f"- {t.name}: weight {t.weight:g}, {_direction(t)}" for t in tasks),
    )


def _direction(task: Task) -> str:
    return f"{task.metric}, {'higher' if task.higher_is_better else 'lower'} is better, {task.low:g} to {task.high:g}"


def _llm_agent(config: Config, tasks: tuple[Task, ...], trace: Trace | None) -> Agent:
    from lamdagent.memory.reflection import reflect
    from lamdagent.selection.llm import LLMPolicy

    agent = config.agent
    settings = llm_settings(config, tasks)
    given = ClientSettings(
        model=agent.model or "",
        api_base=agent.api_base or "",
        temperature=agent.temperature,
        timeout_s=agent.timeout_s,
        attempts=agent.retries + 1,
        usd_limit=config.budget.usd,
    )
    client = Client(given, trace) if trace else Client(given)

    def update(history: History, old: str, space: ActionSpace) -> Notes:
        usd, calls = client.usage.usd, len(client.usage.traces)
        text = reflect(client, history, old, space, settings)
        return Notes(text, client.usage.usd - usd, tuple(client.usage.traces[calls:]))

    name = f"{agent.model} chooses, the surrogate where it fails"
    return Agent(LLMPolicy(client, SurrogatePolicy(), settings), name, update if agent.reflection else None)
