"""LLMs that are no LLMs, to tell what a policy owes to the one it asks: one draws, one knows the answers."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lamdagent.landscape.table import Landscape
from lamdagent.llm.types import Message, Usage
from lamdagent.memory.trial import has_action


class RandomLLM:
    """Answers every question with a random value of the form that was asked for: the worst honest advisor."""

    def __init__(self, seed: int) -> None:
        """Equal seeds give equal answers."""
        self.usage = Usage()
        self.rng = random.Random(seed)

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> str:
        """A legal reply."""
        self.usage.calls += 1
        return json.dumps(self.draw(schema)) if schema else "nothing was learnt"

    def count(self, messages: Sequence[Message]) -> int:
        """About four characters a token."""
        return sum(len(m["content"]) for m in messages) // 4

    def draw(self, form: Mapping[str, Any]) -> Any:
        """A random value of a JSON schema."""
        if "enum" in form:
            return self.rng.choice(form["enum"])
        if form["type"] == "object":
            return {key: self.draw(inner) for key, inner in form["properties"].items()}
        if form["type"] == "array":
            options = form["items"]["enum"]
            return self.rng.sample(options, min(2, len(options)))
        return "drawn at random"


class KnowingLLM(RandomLLM):
    """Takes the action of a shortlist that scores best in the table: the best advisor that looks one step ahead."""

    def __init__(self, seed: int, landscape: Landscape) -> None:
        """`landscape` is what it knows."""
        super().__init__(seed)
        trials = list(filter(has_action, landscape.trials))
        self.known = {t.action.describe(): t.score.value if t.score else -1.0 for t in trials}

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> str:
        """The number of the best line; a random answer to other questions."""
        listed = re.findall(r"^([1-9]\d*)\. (.+\)): expected ", messages[-1]["content"], re.M)
        if not listed or not schema or "choice" not in schema["properties"]:
            return super().ask(messages, schema)
        self.usage.calls += 1
        number, _ = max(listed, key=lambda line: self.known.get(line[1], -1.0))
        return json.dumps({"reason": "it scores best in the table", "choice": int(number)})
