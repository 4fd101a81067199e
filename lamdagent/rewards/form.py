"""Has it the right form?"""

import json
import re
from typing import Any

from lamdagent.rewards.reply import reply


def is_json(completions: list[Any], **_: Any) -> list[float]:
    """1 for an answer that is one JSON value and nothing else, else 0."""
    return [float(_readable(reply(given))) for given in completions]


def matches(completions: list[Any], pattern: list[str], **_: Any) -> list[float]:
    """1 for an answer that is, from end to end, what the column `pattern` (Python's `re`) describes, else 0."""
    pairs = zip(completions, pattern, strict=True)
    return [float(re.fullmatch(wanted, reply(given), re.DOTALL) is not None) for given, wanted in pairs]


def _readable(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
