"""One question to an LLM, bounded in time, retries and money. Only this file and litellm_adapter.py know litellm."""

import logging
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lamdagent.errors import LLMUnavailable
from lamdagent.llm import litellm_adapter
from lamdagent.llm.types import Message, Trace, TracedCall, Untraced, Usage, untraced

log = logging.getLogger(__name__)
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class ClientSettings:
    """Which LLM, and how long and how dearly to insist on it."""

    model: str
    """litellm's name, such as `openai/gpt-4o-2024-08-06`; a local server is `openai/<name>` with `api_base`."""
    api_base: str = ""
    """URL of the endpoint, such as `http://127.0.0.1:8000/v1`; empty = the provider's own."""
    api_key_env: str = ""
    """Environment variable that holds the key; empty = the provider's usual one. No setting holds the key itself."""
    temperature: float = 0.0
    """Dropped by litellm where the model does not take it."""
    max_tokens: int = 2000
    """Longest reply, reasoning included."""
    timeout_s: float = 60.0
    """Longest single call."""
    attempts: int = 5
    """Calls per question, the first included, while the fault is one that may pass: timeout, rate limit, outage."""
    backoff_s: float = 1.0
    """Wait after the first fault, doubled after each further one; really between half of it and all, at random."""
    patience_s: float = 120.0
    """Longest question, waits included. A Retry-After beyond it ends the question at once."""
    structured: Literal["auto", "on", "off"] = "auto"
    """JSON schema in the request: `auto` where litellm says that the model takes one."""
    usd_limit: float | None = None
    """No call starts once so much is spent; None = no limit."""
    input_usd_per_million: float | None = None
    """Price of a million prompt tokens, for models that litellm has no price of."""
    output_usd_per_million: float | None = None
    """The same for reply tokens."""
    trip_after: int = 2
    """Questions failed in a row after which the endpoint counts as down."""
    probe_every: int = 5
    """While it is down only every n-th question is sent, once, without retries."""


class Client:
    """Asks the LLM. Not for use from several threads at once."""

    def __init__(self, settings: ClientSettings, trace: Trace = untraced, spent_usd: float = 0.0) -> None:
        """`spent_usd` was spent before, for a search that goes on."""
        self.settings = settings
        self.usage = Usage(usd=spent_usd)
        self._trace = trace
        self._failures = 0
        self._refused = 0
        self._structured: bool | None = None if settings.structured == "auto" else settings.structured == "on"

    @property
    def down(self) -> bool:
        """True while the endpoint counts as down."""
        return self._failures >= self.settings.trip_after

    def ask(self, messages: Sequence[Message], schema: Schema | None = None) -> str:
        """The reply to `messages`; `schema` is a JSON schema for it, sent where the model takes one.

        Raises:
            LLMUnavailable: when there is no reply within the settings' bounds, or no money left. It holds no secrets.
        """
        limit = self.settings.usd_limit
        if limit is not None and self.usage.usd >= limit:
            raise LLMUnavailable(f"the LLM budget is spent: {self.usage.usd:.4f} of {limit:.4f} USD")
        attempts = self._attempts()
        try:
            reply = self._insist(list(messages), schema, attempts)
        except LLMUnavailable as fault:
            self._failed(fault)
            raise
        if self.down:
            log.warning("the LLM endpoint answers again")
        self._failures = 0
        return reply

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of `messages`: by the model's own tokenizer where litellm ships it, by OpenAI's elsewhere."""
        return int(litellm_adapter.litellm().token_counter(model=self.settings.model, messages=list(messages)))

    def _attempts(self) -> int:
        if not self.down:
            return self.settings.attempts
        self._refused += 1
        if self._refused % self.settings.probe_every:
            raise LLMUnavailable(f"the LLM endpoint is down; tried again every {self.settings.probe_every} questions")
        return 1

    def _failed(self, fault: LLMUnavailable) -> None:
        self._failures += 1
        if self._failures == self.settings.trip_after:
            self._refused = 0
            every = self.settings.probe_every
            log.warning(
                "%s; from now on only every %d. question is tried, the fallback policy decides meanwhile", fault, every
            )

    def _insist(self, messages: list[Message], schema: Schema | None, attempts: int) -> str:
        """Call until there is a reply, attempts or patience run out, or the fault will not pass."""
        end = time.monotonic() + self.settings.patience_s
        for attempt in range(1, attempts + 1):
            started = time.monotonic()
            try:
                return self._call(messages, schema, min(self.settings.timeout_s, max(0.1, end - started)))
            except litellm_adapter.CallFault as fault:
                schema, wait = self._next(fault, schema, attempt)
                if wait is None or attempt == attempts or time.monotonic() + wait > end:
                    raise LLMUnavailable(f"no reply from {self.settings.model} ({attempt} calls): {fault}") from None
                time.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _next(
        self, fault: litellm_adapter.CallFault, schema: Schema | None, attempt: int
    ) -> tuple[Schema | None, float | None]:
        """With what schema and after how many seconds to try again; None: the fault does not pass (a wrong key)."""
        if fault.status in (400, 422) and schema and self._structured:
            self._structured = False  # some servers refuse a request for its schema
            return None, 0.0
        if not fault.passing:
            return schema, None
        backoff = self.settings.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
        return schema, backoff if fault.wait_s is None else fault.wait_s

    def _call(self, messages: list[Message], schema: Schema | None, timeout_s: float) -> str:
        litellm = litellm_adapter.litellm()
        if self._structured is None:
            self._structured = bool(litellm.supports_response_schema(self.settings.model))
        request = {**self._request(timeout_s), "messages": messages}
        if schema and self._structured:
            form = {"name": "choice", "strict": True, "schema": dict(schema)}
            request["response_format"] = {"type": "json_schema", "json_schema": form}
        self.usage.calls += 1
        call: TracedCall = Untraced()
        try:
            with self._trace("llm", self.settings.model, messages, temperature=self.settings.temperature) as call:
                call.answer = self._complete(litellm, request, timeout_s, call)
        except Exception as fault:  # that of a recorder that failed, too: a decision must not die of it
            raise litellm_adapter.fault_of(fault) from None
        finally:
            self.usage.traces += [call.trace_id] if call.trace_id else []
        return str(call.answer)

    def _complete(self, litellm: Any, request: dict[str, Any], timeout_s: float, call: TracedCall) -> str:
        """The reply's text. Faults are cleaned in here, before the recorder of the trace sees them."""
        try:
            response = litellm_adapter.run_with_deadline(timeout_s + 0.5, lambda: litellm.completion(**request))
        except Exception as fault:  # litellm's tree is wide, and providers raise outside it
            raise litellm_adapter.fault_of(fault) from None
        self._count(response, call)
        return (response.choices[0].message.content if response.choices else "") or ""

    def _request(self, timeout_s: float) -> dict[str, Any]:
        """All but messages and schema. Retries are ours: those of the layers below are off, or they would multiply."""
        s = self.settings
        request: dict[str, Any] = {"model": s.model, "temperature": s.temperature, "max_tokens": s.max_tokens}
        request |= {"timeout": timeout_s, "max_retries": 0, "num_retries": 0, "drop_params": True}
        key = os.environ.get(s.api_key_env) if s.api_key_env else None
        if s.api_base:
            request["api_base"] = s.api_base
        if s.api_base and s.model.startswith("openai/") and "OPENAI_API_KEY" not in os.environ:
            key = key or "none"  # local servers want none, the library wants one
        return request | ({"api_key": key} if key else {})

    def _count(self, response: Any, call: TracedCall) -> None:
        """Add the call to the totals and to its trace."""
        usage, s = getattr(response, "usage", None), self.settings
        used = {"input": getattr(usage, "prompt_tokens", 0) or 0, "output": getattr(usage, "completion_tokens", 0) or 0}
        usd = getattr(response, "_hidden_params", {}).get("response_cost")
        if s.input_usd_per_million is not None or s.output_usd_per_million is not None:
            prices = {"input": s.input_usd_per_million or 0.0, "output": s.output_usd_per_million or 0.0}
            usd = sum(used[key] * prices[key] for key in used) / 1e6
        self.usage.prompt_tokens += used["input"]
        self.usage.completion_tokens += used["output"]
        self.usage.usd += usd or 0.0
        call.tokens, call.cost_usd = used, usd
        if usd is None:
            self._unpriced()

    def _unpriced(self) -> None:
        self.usage.unpriced += 1
        if self.usage.unpriced == 1 and self.settings.usd_limit is not None:
            log.warning(
                "no price is known for %s: set its USD per million tokens, or no USD limit holds", self.settings.model
            )
