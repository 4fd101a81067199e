"""A finalist's whole pipeline with another seed: same steps, same data, each on the models of that seed."""

from dataclasses import replace

import pytest

from lamdagent.actions.action import Action
from lamdagent.champion.seed_repeats import Spread, spreads
from lamdagent.memory.trial import History, Trial
from tests.builders import DATASETS, TYPES, base_trial, model, space, trial_of

AT_HAND = tuple(replace(dataset, path="/data.jsonl") for dataset in DATASETS)


def step(kind: int, models: list, number: int, value: float = 0.4, skip: int = 0) -> Trial:
    offered = space(models)
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

    def __call__(self, action: Action) -> Trial | None:
        self.done[action.fingerprint] = action
        return None if action.type == self.fails else trial_of(action, 100 + len(self.done), action.seed / 10)


def test_every_step_is_made_with_the_seed_on_the_models_of_the_seed() -> None:
    history, bench = family(), Bench()
    (found,) = spreads([history.trials[3]], history, TYPES, [1, 2], bench)
    assert found.scores == (0.1, 0.2) and (found.mean, found.deviation) == pytest.approx((0.15, 0.0707), abs=1e-4)
    for seed in (1, 2):
        sfts = sorted((a for a in bench.done.values() if a.seed == seed and a.type == "sft"), key=told)
        (merge,) = (a for a in bench.done.values() if a.seed == seed and a.type == "linear")
        assert {m.fingerprint for m in merge.models} == {a.fingerprint for a in sfts} and len(sfts) == 2
        assert [m.name for m in merge.models] == list(merge.slots["models"])
        old, trained = history.trials[3].action, sorted((t.action for t in history.trials[1:3]), key=told)
        assert old and share(merge, sfts) == pytest.approx(share(old, trained))
    assert not {t.action.fingerprint for t in history.actions if t.action} & set(bench.done)


def told(action: Action) -> tuple:
    """What tells the two trainings apart, whatever their seed."""
    return action.datasets[0].name, action.hyperparameters["lr"]


def share(merge: Action, sfts: list) -> float:
    """Of the model that was trained with the first one's settings."""
    weight = float(merge.hyperparameters["weight"])
    return weight if merge.models[0].fingerprint == sfts[0].fingerprint else 1 - weight


def test_a_step_that_fails_or_is_not_configured_any_more_ends_its_repeat() -> None:
    history = family()
    (found,) = spreads([history.trials[3]], history, TYPES, [1], Bench(fails="sft"))
    assert found.scores == () and "none of 1 could be made" in str(found)
    bench = Bench()
    (found,) = spreads([history.trials[3]], history, TYPES[:1], [1], bench)
    assert found.scores == () and {a.type for a in bench.done.values()} == {"sft"}


def test_words() -> None:
    trial = family().trials[3]
    assert "0.500, 0.700; mean 0.600, standard deviation 0.141; 1 failed" in str(Spread(trial, (0.5, 0.7), 3))
