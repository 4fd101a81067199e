"""Several worker processes as one executor: real jobs at once, without a cluster."""

import time

from lamdagent.execution.executor import Event, Failed, Finished, Job
from lamdagent.execution.local import LocalExecutor


class Several:
    """`capacity` local executors side by side; `overlap` is how many jobs were ever in flight together."""

    def __init__(self, capacity: int, warm_up: tuple[str, ...] = ()) -> None:
        self.capacity = capacity
        self.overlap = 0
        self._idle = [LocalExecutor(warm_up) for _ in range(capacity)]
        self._busy: list[LocalExecutor] = []

    def submit(self, job: Job) -> None:
        executor = self._idle.pop(0)
        executor.submit(job)
        self._busy.append(executor)
        self.overlap = max(self.overlap, len(self._busy))

    def next_event(self, timeout_s: float) -> Event | None:
        until = time.monotonic() + timeout_s
        while True:
            for executor in list(self._busy):
                event = executor.next_event(0.02)
                if isinstance(event, Finished | Failed):
                    self._busy.remove(executor)
                    self._idle.append(executor)
                if event is not None:
                    return event
            if time.monotonic() >= until:
                return None

    def close(self) -> None:
        for executor in [*self._busy, *self._idle]:
            executor.close()
