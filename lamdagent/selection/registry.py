"""From the configuration to the agent: a policy and, with an LLM, the memory update."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from lamdagent.actions.action import ActionType
from lamdagent.config import AgentConfig, Config
from lamdagent.enumeration.space import ActionSpace
from lamdagent.errors import UserError
from lamdagent.evaluation.task import Task
from lamdagent.functions import load_maker
from lamdagent.llm.client import Client, ClientSettings
from lamdagent.llm.templates import LLMSettings
from lamdagent.llm.types import Trace
from lamdagent.memory.trial import History
from lamdagent.objects.dataset import Dataset
from lamdagent.selection.baselines import all_data_sft, baseline_faults, ties_grid
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
    """An agent: the policy that chooses and the reflection that remembers."""

    policy: Policy
    name: str
    """One line for the user."""
    reflect: Reflect | None = None
    """None without an LLM."""
    done: str = "every legal action has been tried"
    """Why the search ends when the policy has nothing left to choose."""
    spent_before: Callable[[float], None] = lambda usd: None
    """Told what earlier processes of the search have paid the LLM, USD: the bill goes on from there."""


@dataclass(frozen=True)
class Setup:
    """The parts that an agent is made from."""

    config: Config
    tasks: tuple[Task, ...]
    trace: Trace | None = None
    """Function that traces LLM calls; None: they are not traced."""


@dataclass(frozen=True)
class PolicyKind:
    """A kind of policy that `agent.kind` can name."""

    build: Callable[[Setup], Agent]
    """Makes the agent."""
    needs_llm: bool = False
    """Whether `agent.model` has to be set."""
    faults: Callable[[Sequence[ActionType], Sequence[Dataset]], Iterator[str]] = lambda types, datasets: iter(())
    """Faults, for the user, for what it lacks among the action types and datasets of a search."""


def make_agent(config: Config, tasks: tuple[Task, ...], trace: Trace | None = None) -> Agent:
    """The agent that `agent.kind` names.

    Raises:
        UserError: there is no such policy (see `policy_kind`).
    """
    return policy_kind(config.agent).build(Setup(config, tasks, trace))


def policy_kind(settings: AgentConfig) -> PolicyKind:
    """The row of POLICIES that `agent.kind` names, or one for a policy of the user's.

    Raises:
        UserError: there is none of that name, or what `module:Name` stands for is no policy.
    """
    kind = settings.kind
    if ":" in kind:
        make = load_maker(kind, settings.arguments, Policy, "agent")
        return PolicyKind(lambda setup: Agent(make(), f"{kind} chooses, a policy of yours"))
    if settings.arguments:
        raise UserError(f"agent.arguments: only a policy of yours takes some, as agent.kind=module:Name; got {kind!r}")
    if kind == AUTO:
        return POLICIES["hybrid" if settings.model else "surrogate"]
    if kind not in POLICIES:
        allowed = ", ".join([AUTO, *POLICIES])
        raise UserError(f"agent.kind: got {kind!r}; allowed: {allowed}, or module:Name of one of yours")
    return POLICIES[kind]


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


def _random(setup: Setup) -> Agent:
    return Agent(RandomPolicy(), "random draws choose (agent=random)")


def _surrogate(setup: Setup) -> Agent:
    hint = "; agent.model=<LLM> lets an LLM choose" if setup.config.agent.kind == AUTO else ""
    return Agent(SurrogatePolicy(), f"the built-in surrogate chooses, no LLM is asked{hint}")


def _tpe(setup: Setup) -> Agent:
    return Agent(TPEPolicy(), "the tree-structured Parzen estimator of Optuna chooses (agent=tpe)")


def _baseline(policy: Policy, setup: Setup) -> Agent:
    name = f"nobody chooses: the paper's baseline (agent={setup.config.agent.kind})"
    return Agent(policy, name, done="the baseline is complete")


def _hybrid(setup: Setup) -> Agent:
    from lamdagent.selection.hybrid import HybridPolicy

    client, settings = _client(setup), llm_settings(setup.config, setup.tasks)
    name = f"{setup.config.agent.model} chooses from the surrogate's shortlist or overrules it"
    return _with_llm(HybridPolicy(client, SurrogatePolicy(), settings), name, client, setup)


def _llm(setup: Setup) -> Agent:
    from lamdagent.selection.llm import LLMPolicy

    client, settings = _client(setup), llm_settings(setup.config, setup.tasks)
    name = f"{setup.config.agent.model} chooses, the surrogate where it fails"
    return _with_llm(LLMPolicy(client, SurrogatePolicy(), settings), name, client, setup)


def _client(setup: Setup) -> Client:
    agent = setup.config.agent
    given = ClientSettings(
        model=agent.model or "",
        api_base=agent.api_base or "",
        temperature=agent.temperature,
        timeout_s=agent.timeout_s,
        attempts=agent.retries + 1,
        api_key_env=agent.api_key_env or "",
        structured=agent.structured,
        max_tokens=agent.max_tokens,
        usd_limit=setup.config.budget.usd,
        input_usd_per_million=agent.input_usd_per_million,
        output_usd_per_million=agent.output_usd_per_million,
    )
    return Client(given, setup.trace) if setup.trace else Client(given)


def _with_llm(policy: Policy, name: str, client: Client, setup: Setup) -> Agent:
    """An agent with the paper's memory update, unless it is switched off."""
    from lamdagent.memory.reflection import reflect

    settings = llm_settings(setup.config, setup.tasks)

    def update(history: History, old: str, space: ActionSpace) -> Notes:
        usd, calls = client.usage.usd, len(client.usage.traces)
        text = reflect(client, history, old, space, settings)
        return Notes(text, client.usage.usd - usd, tuple(client.usage.traces[calls:]))

    def spent_before(usd: float) -> None:
        client.usage.usd += usd

    reflects = update if setup.config.agent.reflection else None
    return Agent(policy, name, reflects, spent_before=spent_before)


AUTO = "auto"
"""The hybrid where an LLM is named, else the surrogate."""
POLICIES: Mapping[str, PolicyKind] = {
    "hybrid": PolicyKind(_hybrid, needs_llm=True),
    "llm": PolicyKind(_llm, needs_llm=True),
    "surrogate": PolicyKind(_surrogate),
    "tpe": PolicyKind(_tpe),
    "random": PolicyKind(_random),
    "all_data_sft": PolicyKind(partial(_baseline, all_data_sft), faults=partial(baseline_faults, "all_data_sft")),
    "ties_grid": PolicyKind(partial(_baseline, ties_grid), faults=partial(baseline_faults, "ties_grid")),
}
"""By `agent.kind`, and one file each in conf/agent."""
