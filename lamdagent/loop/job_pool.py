"""What is in flight: jobs that the executor is at, never more than it takes, landing in order of arrival."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lamdagent.execution.executor import Executor, Failed, Finished, Job, Update
from lamdagent.loop.terminal import Terminal

PATIENCE_S = 1.0
"""Between two signs of life while nothing happens."""


@dataclass
class Landing:
    """A job that has ended."""

    job: Job
    ended: Finished | Failed
    phase: str
    """Its last `Progress.phase`; empty when it never came to one."""

    @property
    def lost(self) -> bool:
        """Whether the worker was lost, and perhaps not by the job's fault."""
        return isinstance(self.ended, Failed) and self.ended.kind == "lost_worker"


class Flight:
    """Starts jobs and waits for whichever ends first."""

    def __init__(self, executor: Executor, view: Terminal, alive: Callable[[], None]) -> None:
        """`view` shows progress; `alive` is called about once a second while we wait."""
        self._executor = executor
        self._view = view
        self._alive = alive
        self._running: dict[str, Job] = {}
        self._phases: dict[str, str] = {}

    def __len__(self) -> int:
        """How many jobs run."""
        return len(self._running)

    @property
    def width(self) -> int:
        """How many jobs may run at once."""
        return self._executor.capacity

    @property
    def free(self) -> bool:
        """Whether one more job fits."""
        return len(self._running) < self.width

    def launch(self, job: Job) -> None:
        """Start `job`; its id is that of no other job in flight."""
        self._executor.submit(job)
        self._running[job.id] = job

    def land(self) -> Landing:
        """Wait for the next job to end, whichever it is; something must be in flight."""
        while True:
            self._alive()
            event = self._executor.next_event(PATIENCE_S)
            if isinstance(event, Update):
                self._phases[event.job_id] = event.progress.phase
                self._view.step(event.progress, event.job_id)
            elif event is not None:
                return Landing(self._running.pop(event.job_id), event, self._phases.pop(event.job_id, ""))

    def each(self, jobs: Iterable[Job]) -> Iterator[Finished | Failed]:
        """Go through `jobs`, as many at once as fit; one is asked for only when there is room for it.

        One that loses its worker is started once more: somebody may just have killed it.
        """
        waiting, more, again = iter(jobs), True, set[str]()
        while more or self._running:
            while more and self.free:
                job = next(waiting, None)
                more = job is not None
                if job is not None:
                    self.launch(job)
            if self._running:
                landing = self.land()
                if landing.lost and landing.job.id not in again:
                    again.add(landing.job.id)
                    self.launch(landing.job)
                else:
                    yield landing.ended
