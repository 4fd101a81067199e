"""A finalist's whole pipeline with another seed: same steps, same data, each on the models of that seed."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from lamdagent.actions.action import Action, ActionType
from lamdagent.champion.seed_repeats import SeedRepeats, SeedVariance
from lamdagent.memory.trial import History, Trial
from lamdagent.selection.policy import Decision, Turn
from tests.builders import DATASETS, TYPES, base_trial, model, space, trial_of

AT_HAND = tuple(replace(dataset, path="/data.jsonl") for dataset in DATASETS)


def step(kind: int, models: list, number: int, value: float = 0.4, skip: int = 0, seed: int = 0) -> Trial:
    offered = space(models, seed=seed)
    offered.datasets = AT_HAND
    actions = [a for a in offered.actions(TYPES[kind]) if set(models[1:] or models) <= set(a.models)]
    return trial_of(actions[skip], number, value)


def family() -> History:
    """base > sft twice, and a merge of the two, of unequal shares."""
    base = base_trial()
    one, two = step(0, [model(0)], 1), step(0, [model(0)], 2, skip=3)
    merged = step(2, [model(0), one.model, two.model], 3, 0.6)
    return History((base, one, two, merged))


class Bench:
    """Makes every action at once, with a score by its seed."""

    def __init__(self, fails: str = "") -> None:
        self.done: dict[str, Action] = {}
        self.fails = fails

    def make(self, decision: Decision) -> Trial:
        action, number = decision.action, 100 + len(self.done)
        assert action.fingerprint not in self.done and (decision.policy, decision.replay_of) == ("repeat", "")
        self.done[action.fingerprint] = action
        failed = action.type == self.fails
        trial = trial_of(action, number, None if failed else action.seed / 10, "no space", "no_space")
        return replace(trial, started=time.time_ns())


def repeated(
    trial: Trial, history: History, types: Sequence[ActionType], seeds: list[int], bench: Bench
) -> SeedVariance:
    """The variance once everything that the policy asks for is made."""
    policy = SeedRepeats([trial], history, types, seeds)
    while decision := policy(Turn(history, space(), len(bench.done))):
        history = History((*history.trials, bench.make(decision)))
    assert not policy.waiting
    (found,) = policy.variances(history)
    return found


def test_every_step_is_made_with_the_seed_on_the_models_of_the_seed() -> None:
    history, bench = family(), Bench()
    found = repeated(history.trials[3], history, TYPES, [1, 2], bench)
    assert found.scores == (0.1, 0.2) and (found.mean, found.deviation) == pytest.approx((0.15, 0.0707), abs=1e-4)
    for seed in (1, 2):
        sfts = sorted((a for a in bench.done.values() if a.seed == seed and a.type == "sft"), key=told)
        (merge,) = (a for a in bench.done.values() if a.seed == seed and a.type == "linear")
        assert {m.fingerprint for m in merge.models} == {a.fingerprint for a in sfts} and len(sfts) == 2
        assert [m.name for m in merge.models] == list(merge.slots["models"])
        old, trained = history.trials[3].action, sorted((t.action for t in history.trials[1:3]), key=told)
        assert old and share(merge, sfts) == pytest.approx(share(old, trained))
    assert not {t.action.fingerprint for t in history.actions if t.action} & set(bench.done)


def test_a_pipeline_of_steps_with_several_seeds_gets_one_seed() -> None:
    history, bench = family(), Bench()
    first, second = history.trials[1], step(0, [model(0)], 2, skip=3, seed=7)
    mixed = History((history.trials[0], first, second, step(2, [model(0), first.model, second.model], 3, 0.6)))
    assert repeated(mixed.trials[3], mixed, TYPES, [2], bench).scores == (0.2,)
    assert {action.seed for action in bench.done.values()} == {2}


def test_several_steps_are_due_at_once_and_those_that_run_are_waited_for() -> None:
    history = family()
    policy, running = SeedRepeats([history.trials[3]], history, TYPES, [1]), history
    for _ in range(2):
        decision = policy(Turn(running, space(), 0))
        assert decision and decision.action.type == "sft"
        trial = replace(trial_of(decision.action, len(running.trials), 0.1), status="running", model=None, score=None)
        running = History((*running.trials, trial))
    assert policy(Turn(running, space(), 0)) is None and policy.waiting


def told(action: Action) -> tuple:
    """What tells the two trainings apart, whatever their seed."""
    return action.datasets[0].name, action.hyperparameters["lr"]


def share(merge: Action, sfts: list) -> float:
    """Of the model that was trained with the first one's settings."""
    weight = float(merge.hyperparameters["weight"])
    return weight if merge.models[0].fingerprint == sfts[0].fingerprint else 1 - weight


def test_a_step_that_fails_ends_its_repeat_whatever_the_failure_and_is_not_tried_again() -> None:
    history = family()
    bench = Bench(fails="sft")
    found = repeated(history.trials[3], history, TYPES, [1], bench)
    assert found.scores == () and "none of 1 could be made" in str(found) and len(bench.done) == 1


def test_a_pipeline_with_a_step_that_is_not_configured_any_more_is_not_begun() -> None:
    history, bench = family(), Bench()
    found = repeated(history.trials[3], history, TYPES[:1], [1], bench)
    assert found.scores == () and not bench.done


def test_weights_that_are_gone_end_a_repeat() -> None:
    history, bench = family(), Bench()
    policy = SeedRepeats([history.trials[3]], history, TYPES, [1])
    decision = policy(Turn(history, space(), 0))
    assert decision is not None
    gone = History((*history.trials, replace(bench.make(decision), pruned=True)))
    assert policy(Turn(gone, space(), 1)) is None and not policy.waiting
    assert policy.variances(gone)[0].scores == ()


def test_words() -> None:
    trial = family().trials[3]
    assert "0.500, 0.700; mean 0.600, standard deviation 0.141; 1 failed" in str(SeedVariance(trial, (0.5, 0.7), 3))
