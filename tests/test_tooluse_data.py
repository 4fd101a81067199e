"""Items, prompt and training sets: disjoint splits, right answers, seeded pairs."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lamdagent.objects.kinds import KINDS
from lamdagent.tooluse import bfcl, constraints, data
from lamdagent.tooluse.checker import judge
from lamdagent.tooluse.prompt import NONE, messages

SPLITS: tuple[bfcl.ItemSplit, ...] = ("train", "search", "test")


def all_items(split: bfcl.ItemSplit) -> tuple[bfcl.Item, ...]:
    return bfcl.items(split, calls=True) + bfcl.items(split, calls=False)


def test_splits_share_nothing() -> None:
    ids = [{item.id for item in all_items(split)} for split in SPLITS]
    assert sum(map(len, ids)) == len(set.union(*ids))
    train, search, test = ({" ".join(i.question.lower().split()) for i in all_items(split)} for split in SPLITS)
    assert not train & (search | test)
    assert len(train) > 2 * len(search) > 200


def test_paraphrases_of_one_live_item_stay_together() -> None:
    first = bfcl.Item("live_simple_4-3-0", "live_simple", "q", ())
    others = [bfcl.Item(f"live_simple_{4 + n}-3-{n}", "live_simple", "q", ()) for n in range(20)]
    assert {item.split for item in others} == {first.split}


def test_a_prefix_of_a_split_mixes_the_categories() -> None:
    assert {item.category for item in bfcl.items("search", calls=True)[:48]} == set(bfcl.CALL_FILES)


def test_prompt_has_examples_then_the_question() -> None:
    item = bfcl.items("train", calls=True)[0]
    roles = [message["role"] for message in messages(item.functions, item.question)]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [message["role"] for message in messages(item.functions, item.question, examples=False)] == [
        "system",
        "user",
    ]
    last = messages(item.functions, item.question)[-1]["content"]
    assert item.question in last and all(function["name"] in last for function in item.functions)


@pytest.mark.parametrize(
    "make", [data.calls, data.simple_calls, data.choices, data.restraint, data.mixed, data.writing]
)
def test_sft_rows(make: Callable[[], data.Rows]) -> None:
    rows = make()
    assert len(rows) >= 90 and rows == make()
    for row in rows:
        assert set(row) == set(KINDS["sft"].columns)
        assert [message["role"] for message in row["completion"]] == ["assistant"] and row["prompt"][-1][
            "role"
        ] == "user"


def test_mixed_has_its_shares_from_the_start() -> None:
    rows = data.mixed(none_share=0.5)
    for part in (rows, rows[:100]):
        share = sum(row["completion"][0]["content"] == NONE for row in part) / len(part)
        assert share == pytest.approx(0.5, abs=0.02)


def test_preferences_prefer_right_to_wrong() -> None:
    rows = data.preferences(seed=1)
    assert rows == data.preferences(seed=1) != data.preferences(seed=2)
    by_prompt = {_key(messages(i.functions, i.question, examples=False)): i for i in all_items("train")}
    for row in rows:
        item = by_prompt[_key(row["prompt"])]
        verdicts = [_judge(item, row[column][0]["content"]) for column in ("chosen", "rejected")]
        assert verdicts[0] == "right" != verdicts[1]
    assert sum(row["chosen"][0]["content"] == NONE for row in rows) == pytest.approx(len(rows) / 4, abs=1)


def test_questions_carry_what_rewards_judge_by() -> None:
    from lamdagent.rewards.calls import right_call

    rows = data.questions()
    assert len({_key(row["prompt"]) for row in rows}) == len(rows)
    golds = {_key(row["prompt"]): row["completion"] for row in [*data.calls(), *data.restraint()]}
    assert right_call([golds[_key(row["prompt"])] for row in rows], [row["call"] for row in rows]) == [1.0] * len(rows)
    unfit = sum(json.loads(row["call"])["answers"] is None for row in rows)
    assert unfit / len(rows) == pytest.approx(0.25, abs=0.01)


def _judge(item: bfcl.Item, reply: str) -> str:
    return judge(reply, item.functions, item.function, item.answers)


def _key(prompt: list[dict[str, Any]]) -> str:
    return json.dumps(prompt, sort_keys=True)


def test_constraints_split_by_topic_and_take_turns() -> None:
    topics = [{task.topic for task in constraints.writings(split)} for split in SPLITS]
    assert sum(map(len, topics)) == len(set.union(*topics)) == len(constraints.TOPICS)
    families = [task.family for task in constraints.writings("search")[: 2 * len(constraints.FAMILIES)]]
    assert all(families.count(family) == 2 for family in constraints.FAMILIES)


REPLIES = [
    ("lower_case", "a cat sleeps.", "A cat sleeps."),
    ("upper_case", "A CAT SLEEPS.", "A cat."),
    ("no_commas", "A cat sleeps all day. It is happy.", "A cat, a dog and a bird sleep."),
    ("bullets", "- one\n- two", "- one"),
    ("keyword", "A warm cat.", "A warmer cat."),
    ("ends_with", "A cat. That is warm.", "A cat. That is warm. Yes."),
    ("starts_with", "Warm is the cat.", "The warm cat."),
    ("few_words", "Two words.", "One two three."),
    ("quoted", '"A cat."', "A cat."),
    ("question", "Is it a cat?", "It is a cat."),
]


@pytest.mark.parametrize(("family", "right", "wrong"), REPLIES)
def test_constraint(family: str, right: str, wrong: str) -> None:
    task = constraints.Writing("id", family, "a cat", "warm", 2)
    assert task.followed(right) and not task.followed(wrong) and not task.followed(" ")
    assert "a cat" in task.prompt


def test_written_replies_meet_their_constraint() -> None:
    assert len(data.writing()) == len(constraints.writings("train"))
