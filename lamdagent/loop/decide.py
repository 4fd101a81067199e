"""The decisions of a turn, as pure functions: they say what to do next, and `effects` does it.

A turn goes: `stop_before_choice`, the policy, `decide`. Neither function writes, waits or asks an executor; questions
to the store come in as functions.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lamdagent.actions.action import Action
from lamdagent.loop.ledger import Ledger
from lamdagent.loop.phases import Phase
from lamdagent.loop.run_writer import ReusableWeights
from lamdagent.selection.policy import Decision
from lamdagent.tracking.runs import RunRecord

PAUSE_S = 1.0
"""Seconds between two looks at what another search is making."""
USER_STOP = "the user has asked for the end"


@dataclass(frozen=True)
class Prior:
    """A finished run of the same action, of any experiment."""

    record: RunRecord
    complete: bool
    """Whether it has a score on every task of this search."""
    here: bool
    """Whether it is in this search's experiment."""
    reusable: ReusableWeights | None = None
    """Its weights and scores where its weights are still there; None where they are gone."""


@dataclass(frozen=True)
class Start:
    """Execute the action."""

    decision: Decision


@dataclass(frozen=True)
class Rescore:
    """Score the model of an older run on the tasks that are new; execute the action where its weights are gone."""

    decision: Decision
    reusable: ReusableWeights


@dataclass(frozen=True)
class Reuse:
    """Take the result of a finished run: nothing is executed."""

    decision: Decision
    record: RunRecord
    adopt: bool
    """Whether the result is copied into this experiment; else it is there already."""


@dataclass(frozen=True)
class ClaimedElsewhere:
    """Another search executes the action now, or has just done it; found out when the run was claimed."""

    decision: Decision


@dataclass(frozen=True)
class Wait:
    """Look again after `seconds`: another search makes what the next step needs."""

    seconds: float


@dataclass(frozen=True)
class Stop:
    """Start no further action now; the phase ends once the running jobs have ended."""

    reason: str
    fatal: bool = False
    """Whether the search must stop for it until a person has acted."""


Outcome = Start | Rescore | Reuse | ClaimedElsewhere | Wait | Stop


def must_stop(ledger: Ledger, stop_requested: bool) -> Stop | None:
    """Why nothing may start, whatever the limits say; None where something may."""
    if stop_requested:
        return Stop(USER_STOP)
    return Stop(ledger.stop_reason) if ledger.stop_reason else None


def stop_before_choice(phase: Phase, ledger: Ledger, needed_s: float) -> Stop | None:
    """Why the policy is not asked; None where it is.

    `needed_s`: expected seconds of the next action and of the final test, which must fit into the phase's limits.
    """
    if not phase.may_win:
        return None if phase.limits.left_s(ledger) > 0 else Stop("no time is left")
    reason = phase.limits.reached(ledger, needed_s)
    return Stop(reason) if reason else None


def decide(
    phase: Phase,
    decision: Decision | None,
    ledger: Ledger,
    stop_requested: bool,
    find: Callable[[Action], Prior | None],
    disk_full: Callable[[Action], str | None],
) -> Start | Rescore | Reuse | Wait | Stop:
    """The next step after the policy's `decision`, which is None where the policy has no action to offer.

    Args:
        phase: The phase that the turn belongs to.
        decision: The action that the policy has chosen.
        ledger: What runs, and whether the search must stop.
        stop_requested: Whether the user has asked for the end meanwhile.
        find: Looks for a finished run of the action.
        disk_full: Why there is no room for the action's weights; None where there is.
    """
    if decision is None:
        return Wait(PAUSE_S) if phase.waiting and not ledger.actions_open else Stop(phase.exhausted)
    if stop := must_stop(ledger, stop_requested):
        return stop
    prior = find(decision.action)
    if prior is not None and prior.complete:
        return Reuse(decision, prior.record, adopt=not prior.here)
    # Where something runs, its end may make room.
    if phase.may_win and (problem := disk_full(decision.action)):
        return Stop(problem, fatal=not ledger.actions_open)
    if prior is not None and prior.reusable is not None:
        return Rescore(decision, prior.reusable)
    return Start(decision)
