"""Jobs in one persistent worker process: libraries are imported once, and a crash or a hang costs one job.

The driver never imports torch. The worker dies with the driver: its end of the pipe closes.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType

from lamdagent.execution.call import call
from lamdagent.execution.executor import WARM_UP, Event, Failed, Finished, Job, Update
from lamdagent.execution.oom import OomWatch
from lamdagent.execution.progress import Progress
from lamdagent.libraries import hush, uncollected

GRACE_S = 5.0
"""Seconds that an idle worker gets to clean up behind itself."""


class LocalExecutor:
    """One worker process, started at once and again after it died."""

    capacity = 1

    def __init__(self, warm_up: Sequence[str] = WARM_UP) -> None:
        """Start the worker; it imports `warm_up` while nobody waits."""
        self._warm_up = tuple(warm_up)
        self._job: Job | None = None
        self._deadline = 0.0
        self._started = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe: Connection = ours
        self._process: BaseProcess = context.Process(target=_serve, args=(theirs, self._warm_up), daemon=True)
        with _sigint_ignored(), _no_main_module():
            self._process.start()
        theirs.close()

    def submit(self, job: Job) -> None:
        """Send `job` to the worker; a dead worker is replaced first."""
        if self._job is not None:
            raise RuntimeError("the local executor runs one job at a time")
        if not self._process.is_alive():
            self._start()
        self._job = job
        self._watch = OomWatch.of(self._process.pid or 0)
        self._started = time.monotonic()
        self._deadline = self._started + job.timeout_s
        with contextlib.suppress(OSError):  # it has just died: `next_event` says so
            self._pipe.send(job)

    def next_event(self, timeout_s: float) -> Event | None:
        """The next event; a worker that died or overran its time limit ends the job as failed and is replaced."""
        if self._job is None:
            return None
        left = self._deadline - time.monotonic()
        ready = wait([self._pipe, self._process.sentinel], max(0.0, min(timeout_s, left)))
        if self._pipe in ready or (ready and self._pipe.poll()):
            try:
                return self._received(self._pipe.recv())
            except (EOFError, OSError):
                return self._lost()
        if ready:
            return self._lost()
        if time.monotonic() >= self._deadline:
            limit = self._job.timeout_s / 60
            return self._end(f"took longer than its limit of {limit:.3g} minutes and was ended", "timeout")
        return None

    def close(self) -> None:
        """End the worker: an idle one by itself, a busy one whatever it does."""
        self._pipe.close()
        if self._job is None:
            self._process.join(GRACE_S)
        self._job = None
        self._process.kill()
        self._process.join()

    def _received(self, event: Event) -> Event:
        if isinstance(event, Finished | Failed):
            self._job = None
        return event

    def _lost(self) -> Event:
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL and self._watch.struck():
            return self._end("out of memory: the kernel killed the worker process for it", "out_of_memory")
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        how += ", not by the kernel for want of memory" if code == -signal.SIGKILL and self._watch.counter else ""
        return self._end(f"the worker process {how}", "lost_worker")

    def _end(self, reason: str, kind: str) -> Event:
        assert self._job is not None
        failed = Failed(self._job.id, reason, kind, seconds=time.monotonic() - self._started)
        self.close()
        self._start()
        return failed


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    """A child inherits it: Ctrl-C is the driver's from the first moment. Other threads cannot set it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep the child from running the user's script again, which need not be guarded by `if __name__ == ...`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(pipe: Connection, warm_up: tuple[str, ...]) -> None:
    """The worker's loop; Ctrl-C is the driver's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    with uncollected(for_good=True):
        for module in warm_up:
            import_quietly(module)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return

        def report(progress: Progress, job: Job = job) -> None:
            pipe.send(Update(job.id, progress))

        pipe.send(call(job, report))


def _follow_parent() -> None:
    """A worker whose driver was killed would train on for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def import_quietly(module: str) -> None:
    """Import ahead of need; what cannot be imported is left to the job that needs it."""
    import importlib

    hush()
    with contextlib.suppress(Exception):  # the job that needs it will say so
        importlib.import_module(module)
