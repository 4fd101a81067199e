"""Jobs in this process, one at a time: for a debugger, and for tests. A crash here ends everything."""

import random
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from lamdagent.execution.call import call
from lamdagent.execution.executor import Event, Job, Update
from lamdagent.execution.progress import Progress


class InlineExecutor:
    """Runs a job when its events are asked for; time limits are not kept, since nothing can end this process's work."""

    capacity = 1

    def __init__(self) -> None:
        """Nothing to start."""
        self._jobs: deque[Job] = deque()
        self._events: deque[Event] = deque()

    def submit(self, job: Job) -> None:
        """Queue `job` until the next `next_event`."""
        self._jobs.append(job)

    def next_event(self, timeout_s: float) -> Event | None:
        """Run the next job to its end; its updates come out before its result."""
        if not self._events and self._jobs:
            job = self._jobs.popleft()

            def report(progress: Progress) -> None:
                self._events.append(Update(job.id, progress))

            with _random_states_kept():
                self._events.append(call(job, report))
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Forget what has not run."""
        self._jobs.clear()


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Give this process its random numbers back: a job seeds them, and MLflow draws the ids of its traces from them."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    state, arrays, tensors = random.getstate(), numpy and numpy.random.get_state(), torch and torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(arrays)
        if torch:
            torch.set_rng_state(tensors)
