"""The effects of a search: the only place where decisions and ended jobs become runs, jobs, files and lines."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Sequence

from lamdagent.actions.action import Action
from lamdagent.enumeration.space import produced
from lamdagent.errors import LamdagentError
from lamdagent.execution.executor import Failed, Job
from lamdagent.loop.decide import ClaimedElsewhere, Outcome, Rescore, Reuse, Start, Stop, Wait
from lamdagent.loop.estimates import eta
from lamdagent.loop.landed import (
    Effect,
    Fail,
    Finish,
    Prune,
    Reflect,
    Retry,
    SaveCosts,
    ended_action,
)
from lamdagent.loop.ledger import OpenRun
from lamdagent.loop.phases import Phase
from lamdagent.loop.run_writer import ReusableWeights
from lamdagent.loop.session import Session
from lamdagent.memory.trial import History
from lamdagent.selection.policy import Decision, Turn


def carry_out(outcome: Outcome, turn: Turn, phase: Phase, search: Session) -> Outcome:
    """Do what was decided; the outcome, which is `ClaimedElsewhere` where another search was faster."""
    match outcome:
        case Start(decision):
            return outcome if _start(decision, None, turn, phase, search) else ClaimedElsewhere(decision)
        case Rescore(decision, reusable):
            return outcome if _start(decision, reusable, turn, phase, search) else ClaimedElsewhere(decision)
        case Reuse():
            _reuse(outcome, turn, search)
        case Wait(seconds):
            search.world.runs.search_run.heartbeat()
            time.sleep(seconds)
        case Stop(reason, fatal=True):
            search.ledger = search.ledger.stopping(reason)
    return outcome


def perform(effects: Sequence[Effect], phase: Phase | None, search: Session) -> None:
    """Perform the effects in their order; `phase` is None before the first one."""
    runs = search.world.runs
    for effect in effects:
        match effect:
            case SaveCosts(spent):
                runs.search_run.record_spent(spent)
            case Finish():
                _finish(effect, search)
            case Fail(failed, None):
                runs.fail(failed.job_id, failed)
            case Fail(failed, Action() as action):
                shutil.rmtree(search.jobs.output(failed.job_id), ignore_errors=True)
                runs.fail(failed.job_id, failed)
                show(action, search)
            case Retry() if phase is not None:
                _retry(effect, phase, search)
            case Reflect(run_id) if phase is not None:
                _reflect(run_id, phase, search)
            case Prune():
                search.disk.after(search.history(), search.world.view.say)


def show(action: Action, search: Session) -> None:
    """Show the latest trial of the action, where there is one."""
    history = search.history()
    same = [t for t in history.actions if t.action and t.action.fingerprint == action.fingerprint]
    if same:
        search.world.view.trial(same[-1], history, history.base_score())


def _start(decision: Decision, reusable: ReusableWeights | None, turn: Turn, phase: Phase, search: Session) -> bool:
    """Whether the run could be claimed; then its job runs, or the run has failed where the job could not be built."""
    run_id = search.world.runs.begin_action(decision, search.plan, turn.memory, turn.history)
    if run_id is None:
        return False
    action = decision.action
    search.ledger = search.ledger.counted(1).opened(run_id, OpenRun(action))
    _announce(run_id, action, turn.history, phase, search)
    try:
        search.pool.submit(_job(run_id, action, reusable, turn.history, phase, search))
    except LamdagentError as error:
        effects, search.ledger = ended_action(Failed(run_id, str(error), "error"), search.ledger, phase)
        perform(effects, phase, search)
    return True


def _announce(run_id: str, action: Action, history: History, phase: Phase, search: Session) -> None:
    ledger, limit = search.ledger, phase.limits.budget.trials
    number = f"{ledger.trials}/{limit}" if limit else ledger.trials
    best = history.scored[0].score if history.scored else None
    left = eta(history, ledger, phase.limits, search.reserve_s(history), search.pool.capacity)
    search.world.view.begin(f"{number} {action.describe()}", best, ledger.usd, left, run_id)


def _job(
    run_id: str, action: Action, reusable: ReusableWeights | None, history: History, phase: Phase, search: Session
) -> Job:
    """The job that scores the `reusable` model of an older run; without one, the job that makes the model."""
    timeout_s = search.timeout_s(phase, action, history)
    if reusable is not None:
        model = dataclasses.replace(produced(action, run_id), location=reusable.weights)
        with contextlib.suppress(LamdagentError):  # the weights are gone after all: the model is made again
            job = search.jobs.eval_job(run_id, model, "search", reusable.scores)
            search.world.runs.record_reuse(run_id, reusable)
            reused = OpenRun(action, known=reusable.scores, weights=reusable.weights)
            search.ledger = search.ledger.opened(run_id, reused)
            return dataclasses.replace(job, timeout_s=min(job.timeout_s, timeout_s))
    return search.jobs.train_job(run_id, action, timeout_s)


def _reuse(outcome: Reuse, turn: Turn, search: Session) -> None:
    action = outcome.decision.action
    search.done.add(action.fingerprint)
    if outcome.adopt:
        search.ledger = search.ledger.counted(1)
        search.world.runs.adopt(outcome.record, outcome.decision, search.plan, turn.memory, search.history())
    show(action, search)


def _finish(done: Finish, search: Session) -> None:
    world, run_id = search.world, done.run_id
    output = search.jobs.output(run_id)
    world.runs.finish(run_id, done.outcome, done.seconds, done.model, search.plan, output, search.history())
    history = search.history()
    world.runs.search_run.record_progress(history, done.ended)
    if done.outcome.data and (overlap := done.outcome.data.get("overlap")):
        world.view.say(overlap, "yellow")
    world.view.trial(history.by_run[world.runs.store.resolve_run_id(run_id)], history, history.base_score())


def _retry(again: Retry, phase: Phase, search: Session) -> None:
    job = again.job
    search.world.view.say(f"{again.reason}: once more with {again.rows} rows at once, as many per step", "yellow")
    search.world.runs.record_second_try(job.id, again.rows)
    shutil.rmtree(search.jobs.output(job.id), ignore_errors=True)
    search.jobs.output(job.id)
    timeout_s = search.timeout_s(phase, again.action, search.history())
    search.pool.submit(dataclasses.replace(job, timeout_s=timeout_s))


def _reflect(run_id: str, phase: Phase, search: Session) -> None:
    if phase.reflect is None:
        return
    history, runs = search.history(), search.world.runs
    notes = phase.reflect(history, runs.search_run.reflection, search.space(history))
    search.ledger = search.ledger.paid(notes.usd)
    runs.search_run.record_reflection(notes.text, notes.traces, run_id)
