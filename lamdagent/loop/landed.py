"""The consequences of a job that has ended, as pure functions: effects for `effects.perform`, and the next ledger."""

import dataclasses
from dataclasses import dataclass

from lamdagent.actions.action import Action, ActionType
from lamdagent.enumeration.space import produced
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.loop.job_pool import JobResult
from lamdagent.loop.ledger import Ledger, OpenRun, Spent
from lamdagent.loop.phases import Phase
from lamdagent.loop.second_try import both, rows_at_once, with_less_memory
from lamdagent.memory.trial import RETRYABLE
from lamdagent.objects.model import Model
from lamdagent.worker.make import Outcome


@dataclass(frozen=True)
class SaveCosts:
    """Store the costs of the search so far."""

    spent: Spent


@dataclass(frozen=True)
class Finish:
    """Close the run with its scores, curves and weights, and show it."""

    run_id: str
    outcome: Outcome
    """The outcome, including the scores that were known before."""
    seconds: float
    """Wall time of all its tries."""
    model: Model
    ended: int
    """The number of trials of the search that have ended, this one included."""


@dataclass(frozen=True)
class Fail:
    """Close the run as failed, remove what its worker has left, and show it."""

    failed: Failed
    action: Action | None
    """None for a base."""


@dataclass(frozen=True)
class Retry:
    """Start the job once more with fewer rows at once."""

    job: Job
    action: Action
    rows: int
    """The micro-batch of the second try."""
    reason: str
    """Why the first try failed."""


@dataclass(frozen=True)
class Reflect:
    """Update the LLM's notes after the run."""

    run_id: str


@dataclass(frozen=True)
class Prune:
    """Delete weights that nothing needs."""


Effect = SaveCosts | Finish | Fail | Retry | Reflect | Prune


def landed(result: JobResult, ledger: Ledger, phase: Phase, kind: ActionType) -> tuple[list[Effect], Ledger]:
    """The effects of an action's job that has ended, and the ledger with it.

    `kind`: the type of the action, whose timeout tells whether the budget has cut the job off.
    """
    run, ended = ledger.open[result.job.id], result.ended
    action = run.making
    assert isinstance(action, Action)
    ledger = ledger.used(ended.seconds, phase.limits.gpus, kind.processes)
    costs = SaveCosts(ledger.spent)
    if run.first is not None:
        ended = both(run.first, ended)
    elif isinstance(ended, Failed) and (smaller := with_less_memory(result.job, ended, result.phase)):
        again = Retry(smaller, action, rows_at_once(smaller), ended.reason)
        return [costs, again], ledger.opened(smaller.id, dataclasses.replace(run, first=ended))
    if isinstance(ended, Failed) and ended.kind == "timeout" and result.job.timeout_s < kind.timeout_s:
        ended = dataclasses.replace(ended, reason=phase.limits.cut_off_reason(ledger), kind="budget")
    effects, ledger = ended_action(ended, ledger, phase)
    return [costs, *effects], ledger


def ended_action(ended: Finished | Failed, ledger: Ledger, phase: Phase) -> tuple[list[Effect], Ledger]:
    """The effects of an action that gets no further try, and the ledger with it."""
    run = ledger.open[ended.job_id]
    action = run.making
    assert isinstance(action, Action)
    ledger = ledger.closed(ended.job_id)
    effects: list[Effect]
    if isinstance(ended, Finished):
        model = produced(action, ended.job_id)
        model = dataclasses.replace(model, location=run.weights or model.location)
        effects = [_finish(ended, model, run, ledger), *([Prune()] if phase.prune else [])]
        ledger = dataclasses.replace(ledger, streak=ledger.streak.succeeded())
    else:
        effects = [Fail(ended, action)]
        ledger = _after_failure(action, ended, ledger, phase)
    return [*effects, *([Reflect(ended.job_id)] if phase.reflect else [])], ledger


def base_landed(ended: Finished | Failed, ledger: Ledger, gpus: int, prune: bool) -> tuple[list[Effect], Ledger]:
    """The effects of a base's evaluation that has ended, and the ledger with it.

    `gpus`: the number of GPUs that the job has held; `prune`: whether weights that nothing needs may be deleted.
    """
    run = ledger.open[ended.job_id]
    assert isinstance(run.making, Model)
    ledger = ledger.used(ended.seconds, gpus).closed(ended.job_id)
    costs = SaveCosts(ledger.spent)
    if isinstance(ended, Failed):
        return [costs, Fail(ended, None)], ledger
    return [costs, _finish(ended, run.making, run, ledger), *([Prune()] if prune else [])], ledger


def _finish(ended: Finished, model: Model, run: OpenRun, ledger: Ledger) -> Finish:
    outcome = ended.value
    assert isinstance(outcome, Outcome)
    outcome = dataclasses.replace(outcome, scores={**run.known, **outcome.scores})
    return Finish(ended.job_id, outcome, ended.seconds, model, ledger.trials - ledger.actions_open)


def _after_failure(action: Action, failed: Failed, ledger: Ledger, phase: Phase) -> Ledger:
    """A failure of the surroundings is no trial: as after a restart, the same turn comes again."""
    streak = ledger.streak.failed(action, failed)
    ledger = dataclasses.replace(ledger.counted(-1 if failed.kind in RETRYABLE else 0), streak=streak)
    return ledger.stopping(streak.stop_reason) if phase.may_win else ledger
