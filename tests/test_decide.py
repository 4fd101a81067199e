"""The turn of the paper as pure functions: what the search does about a choice, without a store or an executor."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lamdagent.actions.action import Action
from lamdagent.config import BudgetConfig
from lamdagent.loop.decide import (
    PAUSE_S,
    USER_STOP,
    Prior,
    Rescore,
    Reuse,
    Start,
    Stop,
    Wait,
    decide,
    must_stop,
    stop_before_choice,
)
from lamdagent.loop.ledger import Ledger, OpenRun
from lamdagent.loop.limits import Limits
from lamdagent.loop.phases import Phase
from lamdagent.loop.run_writer import ReusableWeights
from lamdagent.memory.trial import History
from lamdagent.selection.policy import Decision, Turn
from lamdagent.selection.random_policy import RandomPolicy
from lamdagent.tracking.runs import RunRecord
from tests.builders import SFT, base_trial, space

EXPLORE = Phase("explore", None, RandomPolicy(), "every legal action has been tried", Limits(BudgetConfig(trials=2)))
CHOICE = Decision(next(iter(space(types=(SFT,)).actions(SFT))), "random", "drawn")
RECORD = RunRecord("old", "1", "old", "FINISHED", 0, 1, "")
MADE = ReusableWeights("runs:/old/model", {}, {})
RUNNING = Ledger().opened("run", OpenRun(CHOICE.action))


def nothing(action: Action) -> None:
    return None


def decided(
    decision: Decision | None = CHOICE,
    ledger: Ledger | None = None,
    phase: Phase = EXPLORE,
    stop_requested: bool = False,
    find: Callable[[Action], Prior | None] = nothing,
    disk_full: Callable[[Action], str | None] = nothing,
):
    return decide(phase, decision, ledger or Ledger(), stop_requested, find, disk_full)


class Step:
    """A policy that has no step to offer, because others are made elsewhere or because there is none."""

    def __init__(self, waiting: bool) -> None:
        self.waiting = waiting

    def __call__(self, turn: Turn) -> Decision | None:
        return None


class TestBeforeTheChoice:
    def test_nothing_starts_once_the_user_has_asked_for_the_end_or_failures_have(self) -> None:
        assert must_stop(Ledger(), stop_requested=True) == Stop(USER_STOP)
        assert must_stop(Ledger().stopping("three in a row"), False) == Stop("three in a row")
        assert must_stop(Ledger(), False) is None

    @pytest.mark.parametrize(("trials", "reason"), [(1, None), (2, "2 trials are done"), (3, "2 trials are done")])
    def test_the_budget_ends_a_phase(self, trials: int, reason: str | None) -> None:
        assert stop_before_choice(EXPLORE, Ledger(trials=trials), 0.0) == (Stop(reason) if reason else None)

    def test_the_next_action_and_the_final_test_must_fit(self) -> None:
        phase = replace(EXPLORE, limits=Limits(BudgetConfig(trials=None, wall_clock_minutes=1.0)))
        assert stop_before_choice(phase, Ledger(), 50.0) is None
        late = stop_before_choice(phase, Ledger(), 70.0)
        assert late is not None and "would not fit into 1 minutes with the final test" in late.reason

    def test_repeats_end_by_time_alone(self) -> None:
        limits = Limits(BudgetConfig(trials=1, usd=1.0, wall_clock_minutes=1.0))
        repeats, spent = replace(EXPLORE, may_win=False, limits=limits), Ledger(trials=9, usd=9.0)
        assert stop_before_choice(repeats, spent, 70.0) is None
        assert stop_before_choice(repeats, replace(spent, started=spent.started - 61), 0.0) is not None


class TestChoice:
    def test_a_new_action_starts(self) -> None:
        assert decided() == Start(CHOICE)
        assert decided(ledger=RUNNING) == Start(CHOICE), "whatever else runs"

    def test_a_finished_run_stands_for_the_action(self) -> None:
        assert decided(find=lambda _: Prior(RECORD, True, True, MADE)) == Reuse(CHOICE, RECORD, adopt=False)
        assert decided(find=lambda _: Prior(RECORD, True, False)) == Reuse(CHOICE, RECORD, adopt=True)

    def test_a_model_that_lacks_the_scores_of_new_tasks_is_scored_not_made(self) -> None:
        assert decided(find=lambda _: Prior(RECORD, False, True, MADE)) == Rescore(CHOICE, MADE)
        assert decided(find=lambda _: Prior(RECORD, False, True)) == Start(CHOICE), "its weights are gone"

    def test_an_end_that_was_asked_for_during_the_choice_comes_first(self) -> None:
        complete = Prior(RECORD, True, False)
        assert decided(stop_requested=True, find=lambda _: complete) == Stop(USER_STOP)
        assert decided(ledger=Ledger().stopping("full"), find=lambda _: complete) == Stop("full")

    def test_a_full_disk_stops_the_search_unless_a_running_action_may_make_room(self) -> None:
        assert decided(disk_full=lambda _: "no room") == Stop("no room", fatal=True)
        assert decided(disk_full=lambda _: "no room", ledger=RUNNING) == Stop("no room", fatal=False)
        assert decided(disk_full=lambda _: "no room", find=lambda _: Prior(RECORD, True, True)) == Reuse(
            CHOICE, RECORD, adopt=False
        ), "a result that is there needs no room"
        repeats = replace(EXPLORE, may_win=False)
        assert decided(disk_full=lambda _: "no room", phase=repeats) == Start(CHOICE)


class TestNoChoice:
    def test_an_empty_space_ends_the_phase(self) -> None:
        assert decided(None) == Stop("every legal action has been tried")

    def test_a_step_that_another_search_makes_is_waited_for(self) -> None:
        replay = replace(EXPLORE, policy=Step(waiting=True), exhausted="every step has been made that can be")
        assert decided(None, phase=replay) == Wait(PAUSE_S)
        assert decided(None, phase=replay, ledger=RUNNING) == Stop(replay.exhausted), "our own jobs are collected first"
        assert decided(None, phase=replace(replay, policy=Step(waiting=False))) == Stop(replay.exhausted)


def test_a_whole_turn_of_a_real_policy_and_space() -> None:
    turn = Turn(History((base_trial(),)), space(types=(SFT,)), 0)
    decision = EXPLORE.policy(turn)
    asked = []
    found = decided(decision, find=asked.append)
    assert isinstance(found, Start) and asked == [found.decision.action]
    empty = Turn(turn.history, space(types=(SFT,), tried={a.fingerprint for a in turn.space.actions(SFT)}), 0)
    assert decided(EXPLORE.policy(empty)) == Stop("every legal action has been tried")


def test_only_an_action_counts_as_running() -> None:
    base = SimpleNamespace()
    assert Ledger(open={"base": OpenRun(base)}).actions_open == 0 and RUNNING.actions_open == 1
