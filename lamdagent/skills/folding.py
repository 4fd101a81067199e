"""For chat templates without a system role, such as Gemma 2's: the system message stands above the first question."""

from typing import Any

from lamdagent.functions import load_function
from lamdagent.skills.hub import Rows

Message = dict[str, str]


def fold(messages: list[Message]) -> list[Message]:
    """The same chat with the system message at the start of the first user's message."""
    if messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def folded(function: str, **arguments: Any) -> Rows:
    """The rows of another data function (`module:function`), their prompts folded; the same items in the same order."""
    rows = load_function(function)(**arguments)
    return [{**row, "prompt": fold(row["prompt"])} for row in rows]
