"""Gains over the base with their errors, and who is promoted by them."""

import math
import random
from collections.abc import Mapping

import pytest

from lamdagent.champion.promotion import promotion_results
from lamdagent.evaluation.gain import Gain, difference, gain_over
from lamdagent.evaluation.task import Score, Task
from tests.builders import model, trial_of
from tests.builders import space as space_of

CALLS = Task("calls", "", "", 0.75)
LOSS = Task("loss", "", "", 0.25, higher_is_better=False, low=0.0, high=4.0)


def scored(items: Mapping[str, float]) -> Score:
    mean = sum(items.values()) / len(items)
    variance = sum((value - mean) ** 2 for value in items.values()) / (len(items) - 1)
    return Score(mean, math.sqrt(variance / len(items)))


def drawn(seed: int, count: int = 64) -> tuple[dict[str, float], dict[str, float]]:
    """A base and a model that answers the same items and some more."""
    rng = random.Random(seed)
    base = {f"i{n}": float(rng.random() < 0.4) for n in range(count)}
    return base, {item: 1.0 if rng.random() < 0.2 else value for item, value in base.items()}


def test_paired_error_is_that_of_the_mean_difference_and_smaller() -> None:
    base, ours = drawn(0)
    paired = gain_over([CALLS], {"calls": scored(ours)}, {"calls": scored(base)}, {"calls": ours}, {"calls": base})
    unpaired = gain_over([CALLS], {"calls": scored(ours)}, {"calls": scored(base)})
    assert paired and unpaired and (paired.pairing, unpaired.pairing) == ("paired", "unpaired")
    assert paired.value == pytest.approx(unpaired.value) and paired.stderr < 0.7 * unpaired.stderr
    assert paired.stderr == pytest.approx(scored({item: ours[item] - base[item] for item in base}).stderr)
    assert (paired.low, paired.high) == pytest.approx(
        (paired.value - 1.96 * paired.stderr, paired.value + 1.96 * paired.stderr), abs=1e-4
    )


def test_the_interval_holds_the_true_gain_as_often_as_it_says() -> None:
    held = 0
    for seed in range(400):
        base, ours = drawn(seed, 100)
        gain = gain_over([CALLS], {"calls": scored(ours)}, {"calls": scored(base)}, {"calls": ours}, {"calls": base})
        assert gain
        held += gain.low <= 0.6 * 0.2 <= gain.high
    assert 0.91 <= held / 400 <= 0.985


def test_direction_scale_and_weight_of_each_task_count() -> None:
    base, ours = {"a": 1.0, "b": 3.0, "c": 2.0}, {"a": 1.0, "b": 2.0, "c": 0.0}
    scores = {"calls": Score(0.5, 0.04), "loss": scored(ours)}, {"calls": Score(0.4, 0.03), "loss": scored(base)}
    gain = gain_over([CALLS, LOSS], *scores, {"loss": ours}, {"loss": base})
    assert gain and gain.value == pytest.approx(0.75 * 0.1 + 0.25 * 1.0 / 4)
    error = scored({item: ours[item] - base[item] for item in base}).stderr / 4
    assert gain.stderr == pytest.approx(math.hypot(0.75 * 0.05, 0.25 * error)) and gain.pairing == "partly paired"


@pytest.mark.parametrize(
    ("ours", "base"),
    [
        ({"a": 1.0, "b": 0.0}, {"a": 1.0, "c": 0.0}),  # other items
        ({"a": 1.0}, {"a": 0.0}),  # one item has no spread
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.0}),  # the score is no mean of these
        ({}, {}),
    ],
)
def test_items_that_do_not_belong_together_are_not_paired(ours: dict[str, float], base: dict[str, float]) -> None:
    gain = gain_over([CALLS], {"calls": Score(0.5, 0.3)}, {"calls": Score(0.5, 0.4)}, {"calls": ours}, {"calls": base})
    assert gain == Gain(0.0, 0.5, "unpaired")


def test_no_gain_without_scores() -> None:
    assert gain_over([CALLS], {}, {"calls": Score(0.5)}) is None
    assert difference(None, None, Score(0.5)) is None


def test_a_stored_gain_stands_only_for_the_scores_it_came_from() -> None:
    stored = Gain(0.1, 0.02, "paired")
    assert difference(stored, Score(0.5, 0.03), Score(0.4, 0.04)) == stored
    other = difference(stored, Score(0.6, 0.03), Score(0.4, 0.04))
    assert other and other.pairing == "unpaired" and other.stderr == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("beyond", "states"),
    [
        (0.0, ["selected", "eligible", "eligible", "evaluated"]),
        (1.0, ["evaluated", "selected", "eligible", "evaluated"]),
        (2.0, ["evaluated", "selected", "evaluated", "evaluated"]),
        (9.0, ["evaluated"] * 4),
    ],
)
def test_only_what_is_beyond_the_noise_is_eligible(beyond: float, states: list[str]) -> None:
    actions = list(space_of([model(0)]).actions(space_of().types[0]))
    gains = [Gain(0.30, 0.40), Gain(0.25, 0.05, "paired"), Gain(0.20, 0.15), Gain(-0.1, 0.01)]
    found = promotion_results(
        [(trial_of(a, n, 0.5), gain) for n, (a, gain) in enumerate(zip(actions, gains, strict=False))], beyond
    )
    assert [standing.state for standing in found] == states
    assert "paired, standard error 0.050" in found[1].why and "+0.250 [+0.152, +0.348]" in found[1].why
