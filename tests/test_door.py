"""What is checked before a search: limits of values, columns that rewards read, unlike models, what is needed."""

import random
from collections.abc import Iterator

import pytest

from lamdagent.actions.action import ActionType, Slot
from lamdagent.config import read
from lamdagent.enumeration.fingerprint import canonical, fingerprint_of
from lamdagent.enumeration.reachability import unreachable
from lamdagent.errors import ConfigError, IllegalAction
from lamdagent.objects.dataset import Dataset
from lamdagent.planning.plan import Plan, make_outline, make_plan
from lamdagent.selection.prompts import _wanted
from tests.builders import DATASETS, SFT, model, pool, space
from tests.test_config import composed

BASE = ("+model=pico", "+task=pico_spell", "+dataset=[pico_spell,pico_pairs,pico_words]")
KNOWN = {
    "sft_full": "26fd4232a3aeff2cc9479e3ef65ef1da",
    "sft_lora": "9d9a9abdd4be53a2d18babb9cba802c8",
    "dpo_full": "0367fb2a0d0d59b6611783c868730505",
    "dpo_lora": "88213c7ea4a83caffee8bf0e5c167aee",
    "merge_linear": "a0ffa612cfe6f230b0dc091e64c005a9",
    "merge_ties": "6f6b622126aed060d1fa6a2251b88e0e",
}
"""Of actions that people's stores have: another one, and every old run would be run again."""
DISTILL = ActionType(
    "distill",
    "learns",
    "m:f",
    (Slot("model", "model"), Slot("teacher", "model", distinct_from="model"), Slot("dataset", "sft")),
    {"beta": (0.0, 1.0)},
)


def plan(action: str, *more: str) -> Plan:
    return make_plan(read(composed(*BASE, f"+action=[{action}]", *more)))


def test_fingerprints_of_earlier_actions_stay() -> None:
    found = {}
    for kind in make_outline(read(composed(f"+action=[{','.join(KNOWN)}]", "+task=pico_spell"))).types:
        choices = {"models": [model(1), model(2)], "model": [model(0)]}
        objects = {s.name: choices.get(s.kind) or [d for d in DATASETS if d.kind == s.kind][:1] for s in kind.slots}
        values = {key: allowed[0] for key, allowed in kind.grid.items()}
        found[kind.name] = fingerprint_of(kind, *canonical(kind, objects, values), 0, 1.0)
    assert found == KNOWN


@pytest.mark.parametrize(
    ("action", "setting", "words"),
    [
        ("dpo_lora", "loss=[sigmoid,aot]", "loss: got 'aot'; allowed: sigmoid, hinge"),
        ("kto_lora", "loss=sigmoid", "loss: got 'sigmoid'; allowed: kto, apo_zero_unpaired"),
        ("kto_lora", "micro_batch_size=1", "micro_batch_size: got 1, wanted at least 2"),
        ("grpo_lora", "batch_size=60", "batch_size: got 60, wanted a multiple of generations = 8"),
        ("grpo_lora", "generations=[8,24]", "batch_size: got 64, wanted a multiple of generations = 24"),
        ("distill_full", "beta=[0.5,2]", "beta: got 2.0, wanted 0 to 1"),
        ("rloo_lora", "temperature=0", "temperature: got 0.0, wanted more than 0"),
        ("rloo_full", "generations=1", "generations: got 1, wanted at least 2"),
        ("grpo_full", "reward=polite", "reward: 'polite' in 'polite' is no reward"),
        (
            "grpo_full",
            "reward=lamdagent.rewards.form:matches",
            "its slot 'dataset' takes prompts with the columns pattern, but pico_words has answer, prompt",
        ),
    ],
)
def test_values_beyond_their_limits_are_refused(action: str, setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(action, f"actions.{action}.hyperparameters.{setting}")
    assert words in str(caught.value)


def test_only_prompts_with_the_reward_s_columns_are_offered() -> None:
    (kind,) = plan("grpo_lora").types
    plain = Dataset("plain", "prompts", "", "d8", 10, "", columns=("prompt",))
    full = Dataset("full", "prompts", "", "d9", 10, "", columns=("answer", "prompt"))
    unread = Dataset("unread", "prompts", "", "d7", 10, "")
    some = space(types=(kind,))
    some.datasets = (plain, full, unread)
    assert {action.datasets[0].name for action in some.actions(kind)} == {"full", "unread"}


@pytest.mark.parametrize("produced", [0, 1, 3])
def test_student_and_teacher_are_unlike_models_of_one_vocabulary(produced: int) -> None:
    other = model(9, depth=1, vocabulary=1024)
    some = space([*pool(produced), other], types=(DISTILL,))
    actions = list(some.actions(DISTILL))
    assert some.size(DISTILL) == len(actions) == (produced + 1) * produced * 2 * 2
    assert all(len(set(action.models)) == 2 and other not in action.models for action in actions)
    assert bool(some.available()) == bool(produced)


def test_unlike_models_are_drawn_and_like_ones_refused() -> None:
    some = space(pool(70), types=(DISTILL,))  # too many to be listed
    rng = random.Random(0)
    drawn = [some.sample(DISTILL, rng) for _ in range(300)]
    assert all(action and len(set(action.models)) == 2 for action in drawn)
    one, two = pool(70)[:2]
    objects = {"model": [one], "teacher": [one], "dataset": [DATASETS[0]]}
    with pytest.raises(IllegalAction, match="takes different models as teacher and model"):
        some.make("distill", objects, {})
    there = some.make("distill", {**objects, "teacher": [two]}, {})
    back = some.make("distill", {**objects, "model": [two]}, {})
    assert there.models == (one, two) and back.models == (two, one) and there.fingerprint != back.fingerprint


def test_the_agent_is_told_what_fits() -> None:
    distill, grpo = plan("distill_lora,grpo_lora").types
    assert _wanted(distill.slots[1]) == "one model other than model, with the same vocabulary"
    assert _wanted(grpo.slots[1]) == "one prompts dataset with answer"


def test_distillation_needs_a_second_model() -> None:
    with pytest.raises(ConfigError, match="slot 'teacher' takes another model, but there is only one"):
        plan("distill_lora")
    with pytest.raises(ConfigError, match="no action can produce a second"):
        plan("distill_lora,distill_full")
    plan("distill_lora", "+models.second={source: 'function:lamdagent.pico:build'}")
    for maker in ("sft_lora", "dpo_full", "rft_full", "grpo_lora", "sft_full,merge_linear"):
        plan(f"distill_lora,{maker}")  # its models teach the initial one, and each other
    plan("distill_lora", "+source=trl", "memory.sources.trl.experiments=[theirs]")  # models of others may join


def test_a_teacher_of_another_vocabulary_is_none_but_what_actions_make_is() -> None:
    models = [model(0), model(1, base=1, vocabulary=1024)]
    (fault,) = unreachable((DISTILL,), models, DATASETS)
    assert "distill: no models that can exist fit together in it" in fault
    assert unreachable((DISTILL, SFT), models, DATASETS) == []
    some = space([model(0), model(2, depth=1), model(3, depth=1)], types=(DISTILL,))
    pairs = {action.models for action in some.actions(DISTILL)}
    assert len(pairs) == 6, "made ones teach the initial one, are taught by it, and teach each other"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("teacher.unlike=dataset", "wanted another slot of kind model: model"),
        ("model.unlike=teacher", "one slot of an"),
    ],
)
def test_unlike_must_make_sense(setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan("distill_lora,sft_lora", f"++actions.distill_lora.slots.{setting}")
    assert words in str(caught.value)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    yield


def test_what_actions_need_is_looked_for_before_the_search(without_gpu: None) -> None:
    name = "actions.sft_qlora.needs"
    with pytest.raises(ConfigError) as caught:
        plan("sft_qlora,sft_lora", f"{name}=[gpu,no_such_package]")
    assert "actions.sft_qlora: it needs a GPU, and there is none here; leave it out" in str(caught.value)
    assert "it needs the package no_such_package, which is not installed" in str(caught.value)
    plan("sft_qlora", "execution=ray")  # the machines of the cluster are not this one
