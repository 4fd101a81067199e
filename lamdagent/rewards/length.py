"""Is it short?"""

from typing import Any

from lamdagent.rewards.reply import reply

FULL, NOTHING = 50, 200
"""Words up to which an answer gets all of the reward, and from which on it gets nothing."""


def brief(completions: list[Any], **_: Any) -> list[float]:
    """1 up to 50 words, then less in a straight line, 0 from 200 words on. Alone it rewards silence: mix it."""
    lengths = [len(reply(given).split()) for given in completions]
    return [min(1.0, max(0.0, (NOTHING - length) / (NOTHING - FULL))) for length in lengths]
