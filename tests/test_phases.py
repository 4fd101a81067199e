"""The phases of a search as values, its id, and the times that they are planned with; no store, no executor."""

from dataclasses import replace
from typing import Any

import pytest

from lamdagent.champion.seed_repeats import SeedRepeats
from lamdagent.config import AgentConfig, BudgetConfig, Config, LadderConfig, ModelConfig, SearchConfig
from lamdagent.evaluation.task import Task
from lamdagent.loop.estimates import eta, reserve_s, typical_s
from lamdagent.loop.ledger import Ledger
from lamdagent.loop.limits import Limits
from lamdagent.loop.phases import phases, seed_repeats
from lamdagent.loop.preparation import search_id
from lamdagent.memory.trial import History, Trial
from lamdagent.planning.plan import Plan
from lamdagent.scaling.replay_plan import Replay
from lamdagent.selection.random_policy import RandomPolicy
from lamdagent.selection.registry import Agent, Notes
from tests.builders import DATASETS, SFT, TYPES, base_trial, model, space, trial_of

AT_HAND = tuple(replace(dataset, path="/data.jsonl") for dataset in DATASETS)
LIMITS = Limits(BudgetConfig(trials=3, gpu_hours=2.0), gpus=1)
AGENT = Agent(RandomPolicy(), "random", lambda *_: Notes("", 0.0, ()), "nothing is left")


def trained(number: int, value: float) -> Trial:
    offered = space(types=(SFT,), data_fraction=0.1)
    offered.datasets = AT_HAND
    return trial_of(list(offered.actions(SFT))[number], number, value)


def plan(rungs: list[float]) -> Plan:
    config = Config(models={"base": ModelConfig("x")}, ladder=LadderConfig(rungs, 1), data_fraction=0.1)
    return Plan(config, TYPES, AT_HAND, ())


class TestPhases:
    def test_without_a_ladder_the_agent_explores_and_that_is_all(self) -> None:
        (only,) = phases(plan([]), [model(0)], AGENT, LIMITS, History)
        assert only.policy is AGENT.policy and only.exhausted == "nothing is left" and only.limits.share == 1
        assert only.reflect is AGENT.reflect and only.may_win and only.replay is None and not only.waiting

    def test_a_replay_takes_the_place_of_the_agent(self) -> None:
        last = trained(1, 0.5)
        replay = Replay((last,), History((base_trial(), last)))
        (only,) = phases(plan([]), [model(0)], AGENT, LIMITS, History, replay)
        assert only.replay is not None and only.replay.replay is replay
        assert only.reflect is None and not only.prune, "nobody chooses, and every step is needed"
        assert only.limits.budget.trials == 3

    def test_the_next_rung_is_made_from_the_history_at_the_end_of_the_last(self) -> None:
        now = [History((base_trial(), trained(1, 0.5)))]
        made = phases(plan([0.1, 0.5, 1.0]), [model(0)], AGENT, LIMITS, lambda: now[0])
        first = next(made)
        assert (first.fraction, first.limits.share) == (0.1, pytest.approx(1 / 3))
        now[0] = History((*now[0].trials, trained(2, 0.9)))
        rung = next(made)
        assert rung.replay is not None and [t.run_id for t in rung.replay.replay.trials] == ["run2"]
        assert rung.fraction == 0.5 and rung.replay.replay.overrides.fraction == 0.5
        assert rung.announcement == "the best 1 with 50% of the data"
        assert rung.limits.share == pytest.approx(2 / 3) and rung.limits.budget.trials is None
        assert rung.limits.budget.gpu_hours == 2.0
        assert next(made).fraction == 1.0 and next(made, None) is None

    def test_seed_repeats_change_nothing_but_the_policy_and_that_nothing_is_won_by_them(self) -> None:
        history = History((base_trial(), trained(1, 0.5)))
        (last,) = phases(plan([]), [model(0)], AGENT, LIMITS, History)
        repeats = SeedRepeats(history.trials[1:], history, TYPES, [1, 2])
        phase = seed_repeats(last, repeats)
        assert phase.policy is repeats and not phase.may_win and phase.replay is None
        assert (phase.limits, phase.reflect, phase.prune) == (last.limits, last.reflect, last.prune)


class TestSearchId:
    MODELS = (model(0),)

    def test_a_policy_with_other_arguments_searches_anew(self) -> None:
        def of(**arguments: Any) -> str:
            agent = AgentConfig("tests.parts:Alternating", arguments)
            return search_id(Plan(Config(agent=agent), TYPES, AT_HAND, ()), self.MODELS, None)

        assert of(stride=1) == of(stride=1) and of(a=1, b={"c": [2], 3: 4}) == of(b={"c": [2], 3: 4}, a=1)
        assert len({of(), of(stride=1), of(stride=2), of(stride="2"), of(step=2), of(a=1, b=2)}) == 6

    def test_a_search_without_such_arguments_has_the_id_that_stores_know_it_by(self) -> None:
        """Else a search that was cut off before an upgrade would not be found again."""
        config = Config(agent=AgentConfig("tpe"))
        assert search_id(Plan(config, TYPES, (), ()), self.MODELS, None) == "c3a36eecc7678741"


class TestEstimates:
    HISTORY = History((base_trial(), *(replace(trained(n, 0.5), seconds=n) for n in range(1, 4))))

    def test_the_longest_of_the_last_actions_is_typical(self) -> None:
        assert typical_s(self.HISTORY) == 3 and typical_s(History((base_trial(),))) == 0.0

    def test_the_reserve_is_the_evaluation_of_a_base_on_the_test_split_in_rounds(self) -> None:
        task = Task("calls", "calls", "acc,none", 1.0, limits={"search": 10, "test": 20})
        config = Config(models={"base": ModelConfig("x")}, search=SearchConfig(test_top=2))
        planned = Plan(config, TYPES, AT_HAND, (task,))
        assert reserve_s(self.HISTORY, planned, 1) == 3 * 3 * 2, "3 models, 3 s each, twice as many items"
        assert reserve_s(self.HISTORY, planned, 2) == 2 * 3 * 2

    def test_the_rest_of_the_trials_or_of_the_time(self) -> None:
        by_trials = Limits(BudgetConfig(trials=5))
        assert eta(self.HISTORY, Ledger(trials=3), by_trials, 10.0, 1) == "about 19 s left"
        assert eta(self.HISTORY, Ledger(trials=3), Limits(BudgetConfig(trials=None)), 10.0, 1) is None
        by_time = Limits(BudgetConfig(trials=None, wall_clock_minutes=10))
        assert eta(self.HISTORY, Ledger(), by_time, 10.0, 1) == "about 10 min left"
