"""The text of an answer, whichever form TRL hands it over in."""

from typing import Any


def reply(completion: Any) -> str:
    """The last message's text of a conversational completion, or the text itself, without spaces at its ends."""
    return str(completion if isinstance(completion, str) else completion[-1]["content"]).strip()
