"""The pool of running jobs: never more than the executor takes, collected in the order in which they end."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lamdagent.execution.executor import Executor, Failed, Finished, Job, Update
from lamdagent.loop.terminal import Terminal

PATIENCE_S = 1.0
"""Seconds between two heartbeats while nothing happens."""


@dataclass(frozen=True)
class JobResult:
    """A job that has ended."""

    job: Job
    ended: Finished | Failed
    phase: str
    """Its last `Progress.phase`; empty for a job that reported none."""

    @property
    def lost(self) -> bool:
        """Whether the worker was lost, which need not be the fault of the job."""
        return isinstance(self.ended, Failed) and self.ended.kind == "lost_worker"


class JobPool:
    """Starts jobs and waits for the next one to end."""

    def __init__(self, executor: Executor, view: Terminal, heartbeat: Callable[[], None]) -> None:
        """`view` shows progress; `heartbeat` is called about once a second while we wait."""
        self._executor = executor
        self._view = view
        self._heartbeat = heartbeat
        self._running: dict[str, Job] = {}
        self._phases: dict[str, str] = {}

    def __len__(self) -> int:
        """The number of running jobs."""
        return len(self._running)

    @property
    def capacity(self) -> int:
        """The number of jobs that may run at once."""
        return self._executor.capacity

    @property
    def free(self) -> bool:
        """Whether one more job fits."""
        return len(self._running) < self.capacity

    def submit(self, job: Job) -> None:
        """Start `job`, whose id no other running job has."""
        self._executor.submit(job)
        self._running[job.id] = job

    def wait(self) -> JobResult:
        """The next job that ends; at least one must be running."""
        while True:
            self._heartbeat()
            event = self._executor.next_event(PATIENCE_S)
            if isinstance(event, Update):
                self._phases[event.job_id] = event.progress.phase
                self._view.step(event.progress, event.job_id)
            elif event is not None:
                return JobResult(self._running.pop(event.job_id), event, self._phases.pop(event.job_id, ""))

    def as_completed(self, jobs: Iterable[Job]) -> Iterator[Finished | Failed]:
        """The ends of `jobs`; as many run at once as fit, and the next job is drawn only when there is room for it.

        A job that loses its worker is started once more, since the machine may be at fault.
        """
        waiting, more, again = iter(jobs), True, set[str]()
        while more or self._running:
            while more and self.free:
                job = next(waiting, None)
                more = job is not None
                if job is not None:
                    self.submit(job)
            if self._running:
                result = self.wait()
                if result.lost and result.job.id not in again:
                    again.add(result.job.id)
                    self.submit(result.job)
                else:
                    yield result.ended
