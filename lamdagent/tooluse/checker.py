"""Is a reply the right call? The rules of the benchmark's own AST checker for Python, in code of ours.

Rules: https://github.com/ShishirPatil/gorilla/blob/main/berkeley-function-call-leaderboard/bfcl_eval/eval_checker/ast_eval/ast_checker.py
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lamdagent.tooluse.call import Call, UnreadableCall, read_calls

Verdict = Literal[
    "right",
    "no_parse",
    "wrong_count",
    "wrong_function",
    "missing_argument",
    "unknown_argument",
    "wrong_type",
    "wrong_value",
    "called",
]
"""Why a reply is right or wrong; `called` = a call where no function fits."""

_TYPES = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}


def judge(
    reply: str, functions: Sequence[Mapping[str, Any]], function: str, answers: Mapping[str, list[Any]] | None
) -> Verdict:
    """Judge `reply` against the one right call to `function`, or, with `answers` None, against no call at all.

    Where no function fits, every reply that is not a call is right: the benchmark's rule.
    """
    try:
        calls = read_calls(reply)
    except UnreadableCall:
        return "no_parse" if answers is not None else "right"
    if answers is None:
        return "called" if calls else "right"
    if len(calls) != 1:
        return "wrong_count"
    if calls[0].function != function:
        return "wrong_function"
    description = next(candidate for candidate in functions if candidate["name"] == function)
    return _judge_arguments(calls[0], description["parameters"], answers)


def _judge_arguments(call: Call, schema: Mapping[str, Any], answers: Mapping[str, list[Any]]) -> Verdict:
    given = call.arguments
    if not set(schema.get("required", ())) <= given.keys():
        return "missing_argument"
    for name, value in given.items():
        if name not in schema["properties"] or name not in answers:
            return "unknown_argument"
        verdict = _judge_value(value, schema["properties"][name], answers[name])
        if verdict != "right":
            return verdict
    left_out = [name for name in answers if name not in given]
    return "right" if all("" in answers[name] for name in left_out) else "missing_argument"


def _judge_value(value: Any, details: Mapping[str, Any], answers: list[Any]) -> Verdict:
    declared = details["type"]
    expected = _TYPES[declared]
    inner = _TYPES[details["items"]["type"]] if declared in ("array", "tuple") else None
    if declared == "tuple" and type(value) is tuple:
        value = list(value)
    if declared == "float" and type(value) is int:
        value = float(value)
    if not _typed(value, expected, inner, answers):
        return "wrong_type"
    return "right" if _matches(value, expected, inner, answers) else "wrong_value"


def _typed(value: Any, expected: type, inner: type | None, answers: list[Any]) -> bool:
    """The declared type, or the type of the right answers (which name a variable of another type now and then)."""
    given = type(value)
    if given is not expected:
        return given is _type_of(answers)
    return inner is None or any(
        type(answer) is not list or all(_typed(element, inner, None, answer) for element in value) for answer in answers
    )


def _type_of(answers: Sequence[Any]) -> type | None:
    return next((type(answer) for answer in answers if answer != ""), None)


def _matches(value: Any, expected: type, inner: type | None, answers: list[Any]) -> bool:
    """Equal to one of the right answers, strings up to case, spaces and punctuation."""
    if _type_of(answers) not in (None, expected):  # the answers name a variable: compared as it stands
        return value in answers
    if expected is dict:
        return any(_matches_dict(value, answer) for answer in answers if answer != "")
    if inner is dict:
        return any(_matches_dicts(value, answer) for answer in answers)
    if expected is str:
        return normal(value) in [normal(answer) for answer in answers if isinstance(answer, str)]
    if expected is list:
        return [normal(element) for element in value] in [[normal(part) for part in answer] for answer in answers]
    return value in answers


def _matches_dict(value: Any, answer: Mapping[str, list[Any]]) -> bool:
    if not isinstance(value, dict) or not value.keys() <= answer.keys():
        return False
    right = all(normal(inner) in [normal(option) for option in answer[key]] for key, inner in value.items())
    return right and all(key in value or "" in options for key, options in answer.items())


def _matches_dicts(value: Sequence[Any], answer: Sequence[Any]) -> bool:
    """In the same order and number."""
    return len(value) == len(answer) and all(_matches_dict(v, a) for v, a in zip(value, answer, strict=True))


def normal(value: Any) -> Any:
    """A string without case, spaces and the punctuation `,./-_*^`, single quotes as double ones; others unchanged."""
    return re.sub(r"[ ,./\-_*^]", "", value).lower().replace("'", '"') if isinstance(value, str) else value
