"""The seam of execution: jobs go in, events come out. Both are plain values that can cross a process or a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lamdagent.execution.progress import Progress

WARM_UP = ("torch", "transformers", "trl", "peft", "lm_eval")
"""Imported by a worker while the driver still reads the store, where nobody says what its jobs will need."""


@dataclass(frozen=True)
class Job:
    """A call to be made where the heavy libraries live."""

    id: str
    target: str
    """`module:function`; called as `function(report, **arguments)`."""
    arguments: Mapping[str, Any]
    """Picklable."""
    timeout_s: float
    """After this long the job is ended as failed."""


@dataclass(frozen=True)
class Update:
    """A job's progress."""

    job_id: str
    progress: Progress


@dataclass(frozen=True)
class Finished:
    """A job's return value."""

    job_id: str
    value: Any
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A job that ended without a value; the executor is ready for the next one."""

    job_id: str
    reason: str
    """For a person."""
    kind: str
    """A short stable word, see errors.ActionFailed."""
    details: str = ""
    """Traceback, for the run's artifacts."""
    seconds: float = 0.0


Event = Update | Finished | Failed


def gpu_seconds(seconds: float, gpus: int, processes: int = 1) -> float:
    """GPU time of a job of `seconds` wall time that holds `gpus` for each of its processes until its end."""
    return seconds * gpus * processes


class Executor(Protocol):
    """Runs jobs; at most `capacity` at a time."""

    @property
    def capacity(self) -> int:
        """At least 1; may change while jobs run, as machines come and go."""
        ...

    def submit(self, job: Job) -> None:
        """Start `job`; returns at once."""
        ...

    def next_event(self, timeout_s: float) -> Event | None:
        """The next event of any job, or None when nothing happened for `timeout_s`."""
        ...

    def close(self) -> None:
        """End running jobs and free what they hold; safe to call twice."""
        ...
