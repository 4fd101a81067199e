"""One question to the agent LLM until its answer is usable, with everything that was said."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lamdagent.errors import IllegalAction
from lamdagent.llm import templates
from lamdagent.llm.types import LLM, Message
from lamdagent.text import one_line

T = TypeVar("T")


@dataclass(frozen=True)
class Query:
    """One of the questions of a turn."""

    name: str
    """`type`, `objects` or `shortlist`."""
    messages: list[Message]
    schema: dict[str, Any]
    """JSON schema of the answer."""
    offered: str
    """Options that are offered, for a correction."""
    form: str
    """The answer's form, for a correction."""


@dataclass
class Conversation:
    """The conversation with the LLM in one turn."""

    client: LLM
    corrections: int
    """How often an unusable answer is sent back, per query."""
    calls: list[dict[str, str]] = field(default_factory=list)
    """Each with `call` (the question's name), `reply` (cut) and, when unusable, `fault`."""
    offered: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Remember what was spent before this turn."""
        self._traces, self._usd = len(self.client.usage.traces), self.client.usage.usd

    def ask(self, query: Query, read: Callable[[str], T]) -> T:
        """Ask until `read` takes the answer, telling each time what was wrong.

        Raises:
            IllegalAction: the last answer's fault, when it stays unusable.
            LLMUnavailable: there is no answer.
        """
        messages = list(query.messages)
        for left in range(self.corrections, -1, -1):
            reply = self.client.ask(messages, query.schema)
            said = one_line(reply, 2000)
            self.calls.append({"call": query.name, "reply": said})
            try:
                return read(reply)
            except IllegalAction as fault:
                self.calls[-1]["fault"] = one_line(fault, 500)
                if left == 0:
                    raise
            correction = templates.filled(
                "correction", fault=self.calls[-1]["fault"], offered=query.offered, form=query.form
            )
            messages = [*query.messages, _message("assistant", said or "(empty)"), _message("user", correction)]
        raise AssertionError("unreachable: the last round returns or raises")

    def record(self, offered: Sequence[str] = ()) -> dict[str, Any]:
        """The fields of a `Decision` that tell of the talk; `offered` instead of what the talk offered."""
        cut = tuple(one_line(line) for line in (offered or self.offered)[:100])
        return {
            "prompt_version": templates.prompt_version(),
            "offered": cut,
            "traces": tuple(self.client.usage.traces[self._traces :]),
            "cost_usd": self.client.usage.usd - self._usd,
        }


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
