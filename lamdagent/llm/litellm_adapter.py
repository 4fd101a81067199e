"""Adapter around calls to litellm: a late quiet import, a hard deadline, Retry-After, faults without secrets."""

import contextvars
import email.utils
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lamdagent.text import hide_logins

T = TypeVar("T")


def litellm() -> Any:
    """Litellm, imported late (5 s) and kept quiet: its faults are told by us, its price list is the installed one."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True  # counting tokens must not wait for a hub
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    return litellm


def run_with_deadline(seconds: float, call: Callable[[], T]) -> T:
    """`call()` in a thread of its own: an HTTP timeout is per read, a server that drips bytes would hold us for ever.

    Raises:
        TimeoutError: when it takes longer; the thread is left to end by itself.
    """
    box: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            box.put((call(), None))
        except BaseException as fault:
            box.put((None, fault))

    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    try:
        value, fault = box.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no complete reply within {seconds:.1f} s") from None
    if fault is not None:
        raise fault
    return value  # type: ignore[return-value]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks for, from a number or an HTTP date."""
    value = str(headers.get("retry-after", "")).strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


class CallFault(Exception):
    """A failed call, safe to log, store and trace: no key, token, secret or password of the environment is in it."""

    def __init__(self, message: str, status: int, wait_s: float | None = None) -> None:
        """`status`: of HTTP, 0 = none; `wait_s`: what the server asks to wait first, None when it does not say."""
        super().__init__(message)
        self.status = status
        self.wait_s = wait_s

    @property
    def passing(self) -> bool:
        """Another try may succeed: timeout, rate limit, outage."""
        return self.status in (408, 409, 425, 429) or self.status >= 500


def fault_of(fault: Exception) -> CallFault:
    """Whatever litellm (or the provider below it) raised, as a `CallFault`."""
    if isinstance(fault, CallFault):
        return fault
    status = 408 if isinstance(fault, TimeoutError) else getattr(fault, "status_code", None) or 0
    headers = getattr(fault, "litellm_response_headers", None) or {}
    return CallFault(redact(fault), status, retry_after(headers))


def redact(fault: Exception) -> str:
    """The fault in a line, without anything that the environment keeps as a key, token, secret or password."""
    text = " ".join(re.sub(r"litellm\.\w+: ", "", f"{type(fault).__name__}: {fault}").split())
    for name, value in os.environ.items():
        if len(value) >= 6 and re.search(r"KEY|TOKEN|SECRET|PASSWORD", name, re.I):
            text = text.replace(value, "***")
    text = hide_logins(text)
    return re.sub(r"\b(sk-|Bearer )[\w.-]+", r"\1***", text)[:300]
