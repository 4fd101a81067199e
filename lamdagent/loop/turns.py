"""The loop of the paper for one phase: enumerate, select, execute and evaluate, remember."""

from lamdagent.actions.action import Action
from lamdagent.errors import NotReplayed, SearchStopped
from lamdagent.loop.decide import Outcome, Stop, decide, must_stop, stop_before_choice
from lamdagent.loop.effects import carry_out, perform
from lamdagent.loop.estimates import typical_s
from lamdagent.loop.landed import SaveCosts, landed
from lamdagent.loop.phases import Phase
from lamdagent.loop.session import Session


def loop(phase: Phase, search: Session) -> str:
    """Take turns until the phase ends and no job runs any more; why it ended.

    Raises:
        KeyboardInterrupt: the user has asked for the end; not raised by a phase whose models cannot win.
        SearchStopped: no action can work now; not raised by such a phase either.
    """
    while True:
        stop = fill(phase, search)
        if stop is not None and not search.pool:
            if phase.may_win:
                search.world.stop.check()
                if search.ledger.stop_reason:
                    raise SearchStopped(search.ledger.stop_reason)
            return stop.reason
        collect(phase, search)


def fill(phase: Phase, search: Session) -> Stop | None:
    """Take turns while another job fits; the reason to start none, or None where the pool is full."""
    while search.pool.free:
        outcome = take_turn(phase, search)
        if isinstance(outcome, Stop):
            return outcome
    return None


def take_turn(phase: Phase, search: Session) -> Outcome:
    """One choice and what follows from it."""
    stop = search.world.stop
    if ended := must_stop(search.ledger, stop.requested):
        return ended
    search.say_news_of_sources()
    history = search.history()
    needed_s = typical_s(history) + search.reserve_s(history)
    if ended := stop_before_choice(phase, search.ledger, needed_s):
        return ended
    turn = search.turn(history, keep_memory=phase.may_win)
    decision = phase.policy(turn)
    if decision is not None:
        search.ledger = search.ledger.paid(decision.cost_usd)
        perform([SaveCosts(search.ledger.spent)], phase, search)

    def disk_full(action: Action) -> str | None:
        return search.disk.disk_full_reason(action, history, search.world.runs.search_run.run_id) or None

    outcome = decide(phase, decision, search.ledger, stop.requested, search.find, disk_full)
    return carry_out(outcome, turn, phase, search)


def collect(phase: Phase, search: Session) -> None:
    """Wait for the next job and do what follows from its end."""
    result = search.pool.wait()
    action = search.ledger.open[result.job.id].making
    assert isinstance(action, Action)
    effects, search.ledger = landed(result, search.ledger, phase, search.jobs.type_of(action))
    perform(effects, phase, search)


def close_replay(phase: Phase, search: Session, reason: str) -> None:
    """Show the steps that could not be made, where the phase was a replay; `reason`: why it ended.

    Raises:
        NotReplayed: no pipeline could be made, and nothing else was asked for.
    """
    if phase.replay is None:
        return
    history, view = search.history(), search.world.view
    for step in phase.replay.steps(history).values():
        if step.state == "failed":
            view.say(f"not made again, nor what rests on it: the run {step.source.run_id}: {step.why}", "red")
    search.disk.after(history, view.say)
    if search.world.replay and not phase.replay.made(history):
        raise NotReplayed(phase.replay.shortfall(history, reason))
