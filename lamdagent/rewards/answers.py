r"""Is it the right answer? For mathematics and short facts.

An answer is looked for in the forms that data sets and models use: `\boxed{72}`, `#### 72`, `the answer is 72`, else
the last number, else the whole text.
"""

import re
from decimal import Decimal
from typing import Any

from lamdagent.rewards.reply import reply

MARKS = (r"\\boxed\{([^{}]*)\}", r"####\s*(.+)", r"answer(?:\s+is|\s*:)\s*(.+)")
"""Patterns that name the answer in a text, the surest first; the last occurrence counts."""
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def same_answer(completions: list[Any], answer: list[Any], **_: Any) -> list[float]:
    """1 where an answer says what the column `answer` says, else 0; numbers compare as numbers, text without case."""
    return [float(_final(reply(given)) == _final(str(right))) for given, right in zip(completions, answer, strict=True)]


def _final(text: str) -> Decimal | str:
    named = next((found[-1] for mark in MARKS if (found := re.findall(mark, text, re.IGNORECASE))), None)
    numbers = NUMBER.findall(text if named is None else named)
    if numbers:
        return Decimal((numbers[-1] if named is None else numbers[0]).replace(",", ""))
    return " ".join((text if named is None else named).casefold().split()).strip(" .!?\"'$")
