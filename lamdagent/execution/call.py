"""Make one job's call and turn whatever happens into an event. Runs where the heavy libraries live."""

import errno
import gc
import sys
import time
import traceback
from collections.abc import Iterator

from lamdagent.errors import ActionFailed
from lamdagent.execution.executor import Event, Failed, Finished, Job
from lamdagent.execution.progress import Report
from lamdagent.functions import load_function

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "cublas_status_alloc_failed")
NO_SPACE = ("no space left on device", "disk quota exceeded")


def call(job: Job, report: Report) -> Event:
    """`Finished` with the function's value, or `Failed` with a reason that a person understands; never raises."""
    started = time.monotonic()
    try:
        value = load_function(job.target)(report, **job.arguments)
        return Finished(job.id, value, time.monotonic() - started)
    except Exception as error:
        reason, kind = explain(error)
        failed = Failed(job.id, reason, kind, traceback.format_exc(), time.monotonic() - started)
    if failed.kind == "out_of_memory":
        _give_back()
    return failed


def explain(error: BaseException) -> tuple[str, str]:
    """(reason for a person, stable kind) of an exception."""
    first = f"{type(error).__name__}: {error}".strip().splitlines()[0][:500]
    if isinstance(error, ActionFailed):
        return error.reason, error.kind
    for cause in _causes(error):  # libraries wrap what the system said
        lowered = str(cause).lower()
        if isinstance(cause, MemoryError) or any(mark in lowered for mark in OUT_OF_MEMORY):
            return f"out of memory: use a smaller micro_batch_size or max_length ({first})", "out_of_memory"
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or any(mark in lowered for mark in NO_SPACE):
            return f"no space left on the disk: free some, then start again ({first})", "no_space"
    return first, "error"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _give_back() -> None:
    """Free what the failed job held: trainers and optimizers refer to each other, and the GPU keeps a cache."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
