"""LLM calls as MLflow traces: what was asked, what came back, what it cost. Never with headers or keys."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lamdagent.tracking.store import RunStore


@dataclass
class TracedCall:
    """One call that runs now; the caller fills it in."""

    trace_id: str = ""
    """Known once the call has ended."""
    answer: Any = None
    """Answer that came back, as text or JSON."""
    tokens: Mapping[str, int] = field(default_factory=dict)
    """`input`, `output`."""
    cost_usd: float | None = None
    """None when the price is unknown."""


@contextmanager
def traced_call(
    store: RunStore, name: str, model: str, messages: Sequence[Mapping[str, Any]], **settings: Any
) -> Iterator[TracedCall]:
    """Record the call made inside as one trace of the store's experiment; an exception is recorded and passed on.

    Only `model`, `messages` and `settings` (temperature, seed, ...) are stored as inputs: give no key here. The trace
    is in the store when the block ends; link it to its run with `RunStore.update(run_id, traces=[call.trace_id])`.
    """
    import mlflow
    from mlflow.entities import SpanType
    from mlflow.entities.trace_location import MlflowExperimentLocation

    # Written before the block ends: 10 ms, where flushing MLflow's background queue takes a second.
    os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    mlflow.set_tracking_uri(store.uri)
    call = TracedCall()
    place = MlflowExperimentLocation(store.experiment_id)
    with mlflow.start_span(name, SpanType.CHAT_MODEL, trace_destination=place) as span:
        call.trace_id = span.trace_id
        span.set_inputs({"model": model, "messages": [dict(m) for m in messages], **settings})
        yield call
        span.set_outputs(call.answer)
        _set_figures(span, model, call)


def _set_figures(span: Any, model: str, call: TracedCall) -> None:
    """Tokens and cost where MLflow's own pages look for them."""
    from mlflow.tracing.constant import SpanAttributeKey

    span.set_attribute(SpanAttributeKey.MODEL, model)
    if call.tokens:
        used = {f"{key}_tokens": int(call.tokens.get(key, 0)) for key in ("input", "output")}
        span.set_attribute(SpanAttributeKey.CHAT_USAGE, {**used, "total_tokens": sum(used.values())})
    if call.cost_usd is not None:
        cost = {"input_cost": call.cost_usd, "output_cost": 0.0, "total_cost": call.cost_usd}
        span.set_attribute(SpanAttributeKey.LLM_COST, cost)
