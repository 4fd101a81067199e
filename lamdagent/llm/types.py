"""Records of calls to the LLM: running totals, and the seam through which each call is recorded as a trace."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = dict[str, str]


class TracedCall(Protocol):
    """A call that is being recorded, see tracking/traces.py; the client fills in all but `trace_id`."""

    trace_id: str
    """Empty when nothing is recorded."""
    answer: Any
    tokens: Mapping[str, int]
    """`input`, `output`."""
    cost_usd: float | None


Trace = Callable[..., AbstractContextManager[TracedCall]]
"""Called as `trace(name, model, messages, **settings)` around each call; keys and headers never reach it."""


@dataclass
class Untraced:
    """The call that nobody records."""

    trace_id: str = ""
    answer: Any = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    cost_usd: float | None = None


@contextmanager
def untraced(name: str, model: str, messages: Sequence[Message], **settings: Any) -> Iterator[TracedCall]:
    """The `Trace` that records nothing."""
    yield Untraced()


@dataclass
class Usage:
    """Running totals; grows with every call."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    """0 for calls without a known price, see `unpriced`."""
    unpriced: int = 0
    """Calls whose price nobody knows: a USD limit does not see them."""
    traces: list[str] = field(default_factory=list)
    """Trace ids of every call, the failed ones included."""


class LLM(Protocol):
    """Whom the policies ask: `client.Client`, or one of the controls in landscape/controls.py."""

    usage: Usage
    """Grows with every call."""

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> str:
        """The reply; raises `LLMUnavailable` when there is none."""
        ...

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of `messages`."""
        ...
