"""Make one job's call and turn whatever happens into an event. Runs where the heavy libraries live."""

import importlib
import time
import traceback

from lamdagent.errors import ActionFailed
from lamdagent.execution.executor import Event, Failed, Finished, Job, Report

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
NO_SPACE = ("no space left on device", "disk quota exceeded")


def call(job: Job, report: Report) -> Event:
    """`Finished` with the function's value, or `Failed` with a reason that a person understands; never raises."""
    started = time.monotonic()
    try:
        module, _, name = job.target.partition(":")
        value = getattr(importlib.import_module(module), name)(report, **job.arguments)
        return Finished(job.id, value, time.monotonic() - started)
    except Exception as error:
        reason, kind = explain(error)
        return Failed(job.id, reason, kind, traceback.format_exc(), time.monotonic() - started)


def explain(error: BaseException) -> tuple[str, str]:
    """(reason for a person, stable kind) of an exception."""
    text = f"{type(error).__name__}: {error}".strip()
    first = text.splitlines()[0][:500]
    lowered = text.lower()
    if isinstance(error, ActionFailed):
        return error.reason, error.kind
    if isinstance(error, MemoryError) or any(mark in lowered for mark in OUT_OF_MEMORY):
        return f"out of memory: use a smaller micro_batch_size or max_length ({first})", "out_of_memory"
    if any(mark in lowered for mark in NO_SPACE):
        return f"no space left on the disk ({first})", "no_space"
    return first, "error"
