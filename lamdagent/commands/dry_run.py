"""`dry_run=true`: the plan on paper. Nothing is run, written or asked."""

import math

from lamdagent.enumeration.space import ActionSpace
from lamdagent.loop.action_space import build_action_space
from lamdagent.loop.terminal import Terminal
from lamdagent.memory.text import memory_text
from lamdagent.memory.trial import History
from lamdagent.planning.plan import Plan, stand_in
from lamdagent.selection.policy import Turn
from lamdagent.selection.prompts import object_messages, type_messages
from lamdagent.selection.registry import llm_settings, make_agent

CHARACTERS_PER_TOKEN = 4
LLM_CALLS_PER_TRIAL = 3
"""Type, objects, reflection."""


def show(plan: Plan, view: Terminal) -> None:
    """Print pool, action space, tasks, budget, an estimate of cost, and the two prompts of the first turn."""
    models = [stand_in(name, settings.source) for name, settings in plan.config.models.items()]
    space = build_action_space(plan, models, History())
    view.table("Pool", ("object", "kind", "rows", "description"), _pool(plan))
    view.table("Tasks", ("task", "weight", "metric", "search / test items", "range"), _tasks(plan))
    view.table("Actions", ("type", "choices now", "choices", "description"), _actions(space))
    for line in _settings(plan):
        view.say(line)
    prompts = _prompts(plan, space)
    view.say(_estimate(plan, prompts))
    for title, messages in zip(("first prompt (which type)", "second prompt (which objects)"), prompts, strict=False):
        for message in messages:
            view.rule(f"{title}: {message['role']}")
            view.say(message["content"])


def _settings(plan: Plan) -> list[str]:
    """Agent, budget, sources of the memory, and warnings, a line each."""
    budget = {k: v for k, v in vars(plan.config.budget).items() if v is not None}
    lines = [f"Agent: {make_agent(plan.config, plan.tasks).name}"]
    lines.append("Budget: " + ", ".join(f"{key} {value:g}" for key, value in budget.items()))
    told = "`python -m lamdagent history` with the same arguments shows what is understood of it"
    for name, source in plan.config.memory.sources.items():
        where = ", ".join(map(str, source.experiments))
        lines.append(f"Memory source {name}: runs of {where}, read as {source.mapping}; {told}")
    return lines + [f"Warning: {warning}" for warning in plan.findings.warnings]


def _prompts(plan: Plan, space: ActionSpace) -> list[list[dict[str, str]]]:
    """The messages of the first turn's calls: which type, and which objects for the first type that is legal."""
    memory = memory_text(History(), space, plan.tasks, plan.config.memory.tokens)
    turn = Turn(History(), space, 0, plan.config.search.seed, lambda: memory)
    settings = llm_settings(plan.config, plan.tasks)
    available = space.available()
    return [type_messages(turn, settings)] + [object_messages(turn, available[0], settings)] if available else []


def _pool(plan: Plan) -> list[tuple[str, ...]]:
    given = plan.config.models.items()
    models: list[tuple[str, ...]] = [(name, "model", "", settings.source) for name, settings in given]
    return models + [(d.name, d.kind, str(d.rows), d.description) for d in plan.datasets]


def _tasks(plan: Plan) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for task in plan.tasks:
        items = " / ".join(str(task.limits.get(split, "all")) for split in ("search", "test"))
        rows.append((task.name, f"{task.weight:g}", task.metric, items, f"{task.low:g} to {task.high:g}"))
    return rows


def _actions(space: ActionSpace) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for action_type in space.types:
        grid = math.prod(len(values) for values in action_type.grid.values())
        rows.append((action_type.name, str(space.size(action_type)), f"{grid} settings", action_type.description))
    return rows


def _estimate(plan: Plan, prompts: list[list[dict[str, str]]]) -> str:
    trials = plan.config.budget.trials
    count = f"{trials} trials" if trials else "an open number of trials"
    if not plan.config.agent.model:
        return f"Estimate: {count}, each one action and one evaluation; no LLM, so 0 USD"
    tokens = sum(len(m["content"]) for messages in prompts for m in messages) // CHARACTERS_PER_TOKEN
    tokens += LLM_CALLS_PER_TRIAL * plan.config.memory.tokens
    total = f", about {tokens * trials / 1000:.0f}k tokens in all" if trials else ""
    return f"Estimate: {count}, at most {LLM_CALLS_PER_TRIAL} LLM calls and about {tokens} prompt tokens each{total}"
