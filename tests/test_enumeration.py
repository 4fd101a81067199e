"""Step 1: what is legal, what is the same, and that nothing is built that nobody asked for."""

import itertools
import random
import tracemalloc

import pytest

from lamdagent.errors import IllegalAction
from tests.builders import DATASETS, DPO, LINEAR, SFT, TIES, TYPES, model, pool, space


@pytest.mark.parametrize("produced", [0, 1, 4])
@pytest.mark.parametrize("action_type", TYPES, ids=lambda t: t.name)
def test_size_is_the_number_of_distinct_actions(action_type, produced):
    some = space(pool(produced))
    fingerprints = [a.fingerprint for a in some.actions(action_type)]
    assert some.size(action_type) == len(fingerprints) == len(set(fingerprints))


def test_merge_order_and_mirrored_share_make_no_new_action():
    one, two = pool(2)[1:]
    some = space(pool(2))
    assert (
        some.make("linear", {"models": [one, two]}, {"weight": 0.3}).fingerprint
        == some.make("linear", {"models": [two, one]}, {"weight": 0.7}).fingerprint
    )
    assert (
        some.make("linear", {"models": [one, two]}, {"weight": 0.3}).fingerprint
        != some.make("linear", {"models": [one, two]}, {"weight": 0.7}).fingerprint
    )


def test_default_values_are_part_of_the_fingerprint_as_if_given():
    some = space()
    objects = {"model": [model(0)], "dataset": [DATASETS[0]]}
    assert some.make("sft", objects, {}) == some.make("sft", objects, {"lr": 0.001, "steps": 16})


@pytest.mark.parametrize("change", [{"seed": 1}, {"data_fraction": 0.5}])
def test_seed_and_fraction_change_the_fingerprint(change):
    objects = {"model": [model(0)], "dataset": [DATASETS[0]]}
    assert space().make("sft", objects, {}).fingerprint != space(**change).make("sft", objects, {}).fingerprint


def test_tried_actions_are_never_offered():
    every = list(space().actions(SFT))
    left = space(tried={a.fingerprint for a in every[:-1]})
    assert [a.fingerprint for a in left.actions(SFT)] == [every[-1].fingerprint]
    assert left.sample(SFT, random.Random(0)) == every[-1]
    assert SFT not in space(tried={a.fingerprint for a in every}).available()


def test_what_does_not_fit_is_not_offered():
    assert [t.name for t in space().available()] == ["sft", "dpo"]  # nothing to merge yet
    other = model(9, depth=1, base=8, vocabulary=1024)
    merged = list(space([*pool(1), other]).actions(LINEAR))
    assert all(other not in a.models for a in merged) and merged
    foreign = model(9, depth=1, base=8)
    assert all(foreign not in a.models for a in space([*pool(2), foreign]).actions(TIES))
    assert not list(space(pool(1), max_depth=1).actions(LINEAR))


@pytest.mark.parametrize(
    ("type_name", "objects", "values", "words"),
    [
        ("nope", {}, {}, "allowed: sft"),
        ("sft", {"model": [], "dataset": [DATASETS[0]]}, {}, "takes 1"),
        ("sft", {"model": [model(0)], "dataset": [DATASETS[2]]}, {}, "cannot take pairs"),
        ("sft", {"model": [model(0)], "dataset": [DATASETS[0]]}, {"lr": 7.0}, "allowed: 0.001, 0.002"),
        ("sft", {"model": [model(0)], "dataset": [DATASETS[0]]}, {"rl": 0.001}, "it has lr"),
        ("linear", {"models": [model(1, 1), model(1, 1)]}, {}, "different"),
    ],
)
def test_illegal_actions_say_what_is_allowed(type_name, objects, values, words):
    with pytest.raises(IllegalAction, match=words):
        space(pool(2)).make(type_name, objects, values)


def test_tried_action_cannot_be_made():
    action = next(space().actions(DPO))
    with pytest.raises(IllegalAction, match="tried already"):
        space(tried={action.fingerprint}).make("dpo", {"model": [model(0)], "dataset": [DATASETS[2]]}, {})


def test_a_pool_of_thousands_is_never_multiplied_out():
    big = space([model(0), *(model(n, depth=1) for n in range(1, 3000))])
    tracemalloc.start()
    assert big.size(TIES) > 10**9
    drawn = big.sample(TIES, random.Random(1))
    first = list(itertools.islice(big.actions(LINEAR), 5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn is not None and len(first) == 5 and peak < 20e6


def test_sampling_is_uniform_over_objects():
    some = space(pool(3))
    rng = random.Random(0)
    drawn = [some.sample(LINEAR, rng).fingerprint for _ in range(1800)]
    counts = [drawn.count(a.fingerprint) for a in some.actions(LINEAR)]
    assert len(counts) == 18 and min(counts) > 60 and max(counts) < 150
