"""Rewards that a program can check, and their sums written as text."""

import json
from typing import Any

import pytest

from lamdagent.rewards.answers import same_answer
from lamdagent.rewards.calls import near_call, right_call
from lamdagent.rewards.form import is_json, matches
from lamdagent.rewards.length import brief
from lamdagent.rewards.mix import Reward, columns_of, terms

AREA = {
    "name": "area",
    "parameters": {"properties": {"base": {"type": "integer"}, "unit": {"type": "string"}}, "required": ["base"]},
}
CALL = json.dumps({"functions": [AREA], "function": "area", "answers": {"base": [10], "unit": ["cm", ""]}})
NONE = json.dumps({"functions": [AREA], "function": "", "answers": None})


def said(*texts: str) -> list[Any]:
    """As TRL hands answers over, in turn as text and as messages."""
    return [text if i % 2 else [{"role": "assistant", "content": text}] for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("3 boxes of 24 make 72", "72", 1.0),
        ("So it is 72.\n#### 72", "Natalia sold 48 ... altogether.\n#### 72", 1.0),
        ("That is \\boxed{1,250.0} and not 7.", "1250", 1.0),
        ("The answer is 7. I checked it 3 times.", 7, 1.0),
        ("72 at first, then 71", "72", 0.0),
        ("-5", "5", 0.0),
        ("  Paris. ", "paris", 1.0),
        ("Answer: New  York", "new york", 1.0),
        ("London", "Paris", 0.0),
        ("", "Paris", 0.0),
    ],
)
def test_same_answer(text: str, answer: Any, expected: float) -> None:
    assert same_answer(said(text), [answer]) == [expected]


def test_calls_are_judged_by_the_checker() -> None:
    replies = ["area(base=10)", 'area(base=10, unit="m")', "area(base=9)", "area()", "size(base=10)", "ten"]
    given = said(*replies)
    assert right_call(given, [CALL] * 6) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert near_call(given, [CALL] * 6) == [1.0, 0.6, 0.6, 0.4, 0.2, 0.0]
    restrained = said("none", "area(base=1)")
    assert right_call(restrained, [NONE] * 2) == near_call(restrained, [NONE] * 2) == [1.0, 0.0]


def test_form_and_length() -> None:
    assert is_json(said('{"a": [1]}', "{a: 1}", 'Sure: {"a": 1}')) == [1.0, 0.0, 0.0]
    assert matches(said("yes", "yes!", "a\nb"), ["yes|no", "yes|no", "a.b"]) == [1.0, 0.0, 1.0]
    assert brief(said("word " * 50, "word " * 125, "word " * 300)) == [1.0, 0.5, 0.0]


def test_a_sum_is_read() -> None:
    ours = "lamdagent.rewards"
    mix = f"{ours}.answers:same_answer + 0.2 * {ours}.form:matches + -1e-3*{ours}.length:brief"
    assert [(t.weight, t.load()) for t in terms(mix)] == [(1.0, same_answer), (0.2, matches), (-0.001, brief)]
    assert columns_of(mix) == ("answer", "pattern")


def strict(completions: list[Any], tone: list[str]) -> list[float]:
    return [1.0 for _ in completions]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("same_answer", "is no reward; the form is"),
        ("", "is no reward"),
        ("no.such.module:f", "no module:function on the Python path"),
        ("lamdagent.rewards.answers:right", "no module:function on the Python path"),
        ("much * lamdagent.rewards.length:brief", "the weight 'much'"),
        ("nan * lamdagent.rewards.length:brief", "is no number"),
        ("0 * lamdagent.rewards.length:brief", "every weight"),
        ("tests.test_rewards:strict", "must end its parameters with"),
    ],
)
def test_a_sum_that_makes_no_sense_is_explained(text: str, words: str) -> None:
    assert words in Reward().fault(text, {})
