"""For chat templates without a system role, such as Gemma 2's: the system message stands above the first question."""

import importlib
from typing import Any

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
    module, _, name = function.partition(":")
    rows = getattr(importlib.import_module(module), name)(**arguments)
    return [{**row, "prompt": fold(row["prompt"])} for row in rows]
