"""Is it the right function call? By the rules of the benchmark's checker (tooluse/checker.py)."""

import json
from typing import Any

from lamdagent.rewards.reply import reply
from lamdagent.tooluse.checker import judge

NEAR = {
    "wrong_count": 0.1,
    "wrong_function": 0.2,
    "unknown_argument": 0.4,
    "missing_argument": 0.4,
    "wrong_type": 0.5,
    "wrong_value": 0.6,
    "right": 1.0,
}
"""How far each verdict has come; what is not here (no call, or a call where none fits) is worth nothing."""


def right_call(completions: list[Any], call: list[str], **_: Any) -> list[float]:
    """1 for the right call, else 0.

    The column `call` is JSON: {"functions": those on offer, "function": the right one's name, "answers": parameter ->
    right values, or null where no function fits}.
    """
    return [float(verdict == "right") for verdict in _verdicts(completions, call)]


def near_call(completions: list[Any], call: list[str], **_: Any) -> list[float]:
    """As `right_call`, with a share for calls that are nearly right: for models that rarely get one right."""
    return [NEAR.get(verdict, 0.0) for verdict in _verdicts(completions, call)]


def _verdicts(completions: list[Any], call: list[str]) -> list[str]:
    return [judge(reply(given), **json.loads(right)) for given, right in zip(completions, call, strict=True)]
