"""The phases of a search as values: explore or replay, then the rungs of the ladder, then the seed repeats.

What differs between them stands in the fields of `Phase`; the loop is the same for all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from lamdagent.champion.seed_repeats import SeedRepeats
from lamdagent.loop.limits import Limits
from lamdagent.memory.trial import History
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan
from lamdagent.scaling.ladder import pipelines_for_rung
from lamdagent.scaling.replay_plan import Replay
from lamdagent.scaling.replay_policy import ReplayPolicy
from lamdagent.selection.policy import Policy
from lamdagent.selection.registry import Agent, Reflect


@runtime_checkable
class Waiting(Protocol):
    """A policy whose None can mean: not yet, another search makes what the next step needs."""

    @property
    def waiting(self) -> bool:
        """Whether the last None meant that."""
        ...


@dataclass(frozen=True)
class Phase:
    """A part of the search with one policy."""

    name: str
    fraction: float | None
    """Share of the data; the history shows the runs of this share only. None: as configured, and it shows all."""
    policy: Policy
    exhausted: str
    """Why the phase ends when the policy has no action left, for a person."""
    limits: Limits
    reflect: Reflect | None = None
    """Updates the LLM's notes after each action; None: nothing does."""
    prune: bool = False
    """Whether weights that nothing needs are deleted after each action."""
    may_win: bool = True
    """Whether its models compete to be the champion.

    Where they do not, the rest of the search does not depend on the phase: only time ends it, failures do not stop the
    search, and the memory text is not kept.
    """
    announcement: str | None = None
    """Message for the user when the phase begins, after the reason for the end of the one before."""

    @property
    def replay(self) -> ReplayPolicy | None:
        """The policy where it repeats the steps of earlier pipelines, and pipelines count instead of single actions."""
        return self.policy if isinstance(self.policy, ReplayPolicy) else None

    @property
    def waiting(self) -> bool:
        """Whether the policy had no action only because another search makes an input."""
        return isinstance(self.policy, Waiting) and self.policy.waiting


def phases(
    plan: Plan,
    models: Sequence[Model],
    agent: Agent,
    limits: Limits,
    history: Callable[[], History],
    replay: Replay | None = None,
) -> Iterator[Phase]:
    """The phases whose models may win, in turn: exploration or `replay`, then every further rung of the ladder.

    The phase of a rung is made from the `history` at the end of the rung below: draw it then.
    """
    rungs = plan.config.ladder.rungs
    first = replace(limits, share=1 / max(1, len(rungs)))
    if replay is not None:
        yield _replay_phase("replay", plan, models, replay, plan.config.scope, first)
    else:
        yield explore(plan, agent, first)
    for number, fraction in enumerate(rungs[1:], 2):
        best = pipelines_for_rung(history(), plan, fraction)
        rest = replace(limits, share=number / len(rungs)).without_trials()
        phase = _replay_phase(f"rung {number}", plan, models, best, fraction, rest)
        yield replace(phase, announcement=f"the best {len(best.trials)} with {fraction:.0%} of the data")


def explore(plan: Plan, agent: Agent, limits: Limits) -> Phase:
    """The phase in which the agent chooses among all legal actions."""
    prune = plan.config.retention.automatic
    return Phase("explore", plan.config.scope, agent.policy, agent.done, limits, agent.reflect, prune)


def seed_repeats(last: Phase, repeats: SeedRepeats) -> Phase:
    """The phase that makes the finalists again with other seeds, under the limits of the `last` phase."""
    exhausted = "every repeat has been made that can be"
    return replace(last, name="seed repeats", policy=repeats, exhausted=exhausted, may_win=False, announcement=None)


def _replay_phase(
    name: str, plan: Plan, models: Sequence[Model], replay: Replay, fraction: float | None, limits: Limits
) -> Phase:
    """No pruning: a step may need weights that no score speaks for."""
    policy = ReplayPolicy(replay, plan.types, dict(zip(plan.config.models, models, strict=True)))
    return Phase(name, fraction, policy, "every step has been made that can be", limits)
