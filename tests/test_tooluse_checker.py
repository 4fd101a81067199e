"""The rules of the benchmark's AST checker, case by case; answer by answer with its own code."""

import importlib.util
import sys
from pathlib import Path

import pytest

from lamdagent.tooluse import bfcl
from lamdagent.tooluse.call import Call, UnreadableCall, read_calls
from lamdagent.tooluse.checker import judge

ROOT = Path(__file__).parents[1]
AREA = {
    "name": "shape.area",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "integer"},
            "height": {"type": "float"},
            "unit": {"type": "string"},
            "sides": {"type": "array", "items": {"type": "integer"}},
            "names": {"type": "array", "items": {"type": "string"}},
            "options": {"type": "dict", "properties": {}},
            "parts": {"type": "array", "items": {"type": "dict"}},
            "exact": {"type": "boolean"},
            "corner": {"type": "tuple", "items": {"type": "float"}},
        },
        "required": ["base"],
    },
}
RIGHT = {
    "base": [10],
    "height": ["", 5.0],
    "unit": ["", "sq. metres", "m2"],
    "sides": ["", [3, 4, 5]],
    "names": ["", ["Left Side", "b"]],
    "options": ["", {"round": [True], "digits": [2, ""]}],
    "parts": ["", [{"id": [1]}, {"id": [2]}]],
    "exact": ["", True],
    "corner": ["", [1.0, 2.0]],
}

CASES = [
    ("shape.area(base=10)", "right"),
    ("[shape.area(base=10)]", "right"),
    ("`shape.area(base=10)`\n", "right"),
    ("'shape.area(base=10)'", "no_parse"),
    ("shape.area(base=5 * 2)", "right"),
    ("shape.area(base=10.0)", "wrong_type"),
    ("shape.area(base='10')", "wrong_type"),
    ("shape.area(base=11)", "wrong_value"),
    ("shape.area(base=-10)", "wrong_value"),
    ("shape.area(10)", "missing_argument"),
    ("shape.area()", "missing_argument"),
    ("shape.area(base=10, colour='red')", "unknown_argument"),
    ("area(base=10)", "wrong_function"),
    ("shape.area(base=10), shape.area(base=10)", "wrong_count"),
    ("[]", "wrong_count"),
    ("none", "no_parse"),
    ("The area is 50.", "no_parse"),
    ("shape.area(base: 10)", "no_parse"),
    ("", "wrong_count"),
    ("shape.area(base=10, height=5)", "right"),  # an int is good enough for a float
    ("shape.area(base=10, height=True)", "wrong_type"),
    ("shape.area(base=10, unit='SQ METRES')", "right"),  # case, spaces and punctuation do not count
    ("shape.area(base=10, unit='sq-metres')", "right"),
    ("shape.area(base=10, unit=m2)", "right"),  # a bare name stands for its text
    ("shape.area(base=10, unit='square')", "wrong_value"),
    ("shape.area(base=10, sides=[3, 4, 5])", "right"),
    ("shape.area(base=10, sides=[5, 4, 3])", "wrong_value"),
    ("shape.area(base=10, sides=(3, 4, 5))", "wrong_type"),
    ("shape.area(base=10, names=['left side', 'B'])", "right"),
    ("shape.area(base=10, names='b')", "wrong_type"),
    ("shape.area(base=10, options={'round': True})", "right"),
    ("shape.area(base=10, options={'round': True, 'digits': 2})", "right"),
    ("shape.area(base=10, options={'digits': 2})", "wrong_value"),
    ("shape.area(base=10, options={'round': True, 'more': 1})", "wrong_value"),
    ("shape.area(base=10, parts=[{'id': 1}, {'id': 2}])", "right"),
    ("shape.area(base=10, parts=[{'id': 2}, {'id': 1}])", "wrong_value"),
    ("shape.area(base=10, parts=[{'id': 1}])", "wrong_value"),
    ("shape.area(base=10, exact=True)", "right"),
    ("shape.area(base=10, exact=true)", "wrong_type"),
    ("shape.area(base=10, corner=(1.0, 2.0))", "right"),
    ("shape.area(base=10, corner=[1.0, 2.0])", "right"),
    ("shape.area(base=__import__('os').getpid())", "wrong_type"),  # a call stays text
    ("shape.area(base=9**9**9**9)", "no_parse"),
    ("shape.area(base=1/0)", "no_parse"),
    ("shape.area(**{'base': 10})", "missing_argument"),
    ("shape.area(base=10" + "(" * 5000, "no_parse"),
]


@pytest.mark.parametrize(("reply", "verdict"), CASES)
def test_rules(reply: str, verdict: str) -> None:
    assert judge(reply, [AREA], "shape.area", RIGHT) == verdict


def test_argument_without_an_empty_answer_is_due() -> None:
    assert judge("shape.area(base=10)", [AREA], "shape.area", {"base": [10], "unit": ["m2"]}) == "missing_argument"


@pytest.mark.parametrize(
    ("reply", "verdict"), [("none", "right"), ("I cannot do that.", "right"), ("", "right"), ("f(a=1)", "called")]
)
def test_no_call(reply: str, verdict: str) -> None:
    assert judge(reply, [AREA], "", None) == verdict


def test_text_and_value_of_a_call() -> None:
    call = Call("a.b", {"x": 'say "hi"', "y": ["one", 2.5, None], "z": {"k": True}})
    assert read_calls(str(call)) == [call]
    assert str(Call("f", {"x": "it's"})) == 'f(x="it\'s")'
    with pytest.raises(UnreadableCall):
        read_calls("f(x={**y})")


def test_gold_answers_are_right_and_mutations_wrong() -> None:
    found = [item for split in ("train", "search", "test") for item in bfcl.items(split, calls=True)]
    assert len(found) > 600
    for item in found:
        gold = item.gold
        assert gold and item.answers is not None
        assert judge(str(gold), item.functions, item.function, item.answers) == "right", item.id
        assert judge(str(Call("no." + gold.function, gold.arguments)), item.functions, item.function, item.answers) != (
            "right"
        )
        extra = Call(gold.function, {**gold.arguments, "surely_unknown": 1})
        assert judge(str(extra), item.functions, item.function, item.answers) == "unknown_argument"
        for name in gold.arguments:
            less = Call(gold.function, {key: value for key, value in gold.arguments.items() if key != name})
            assert judge(str(less), item.functions, item.function, item.answers) == "missing_argument"
            other = Call(gold.function, {**gold.arguments, name: "surely another value"})
            assert judge(str(other), item.functions, item.function, item.answers) in ("wrong_type", "wrong_value")


def test_agrees_with_the_benchmark_answer_by_answer() -> None:
    """All of it: `scripts/studies/compare_bfcl.py`, its result in docs/bfcl.md."""
    spec = importlib.util.spec_from_file_location("compare_bfcl", ROOT / "scripts" / "studies" / "compare_bfcl.py")
    assert spec and spec.loader
    compare_bfcl = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compare_bfcl)
    found = compare_bfcl.compare([*bfcl.items("search", calls=True)[:30], *bfcl.items("search", calls=False)[:10]])
    assert found["counts"]["agree right"] > 500 and found["counts"]["agree wrong"] > 2000
    assert {(one["why"], one["ours"], one["benchmark"]) for one in found["differ"]} == {
        ("operator", "no_parse", "right")
    }
    assert not [name for name in sys.modules if name.startswith("bfcl_eval")], "nothing is left behind"
