"""The ledger of a search: the one place that counts trials, LLM dollars, GPU time, failures in a row and open runs.

A ledger is a value. Each method returns the next one, so `landed` can book a job without touching anything, and the
session holds the present one.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lamdagent.actions.action import Action
from lamdagent.evaluation.task import Score
from lamdagent.execution.executor import Failed, gpu_seconds
from lamdagent.loop.failure_streak import FailureStreak
from lamdagent.objects.model import Model


@dataclass(frozen=True)
class Spent:
    """The costs of a search so far."""

    trials: int = 0
    usd: float = 0.0
    gpu_seconds: float = 0.0


@dataclass(frozen=True)
class OpenRun:
    """A run of this search that is not closed yet."""

    making: Model | Action
    """The base that is scored, or the action that is executed."""
    first: Failed | None = None
    """The end of the first try, while the second runs."""
    known: Mapping[str, Score] = field(default_factory=dict)
    """Task -> score that need not be taken again: same weights, same items."""
    weights: str = ""
    """Location of the action's model where an older run has made it; empty: this run makes it."""


@dataclass(frozen=True)
class Ledger:
    """Everything that is counted while a search runs."""

    trials: int = 0
    """Actions of this search, those of earlier processes included; a failure of the surroundings does not count."""
    usd: float = 0.0
    """LLM bill, that of earlier processes included."""
    gpu_seconds: float = 0.0
    """GPU time of every job, failed jobs and earlier processes included."""
    streak: FailureStreak = field(default_factory=FailureStreak)
    open: Mapping[str, OpenRun] = field(default_factory=dict)
    """Run id -> run."""
    stop_reason: str | None = None
    """Why the search must stop once the running jobs have ended; None while it need not."""
    started: float = field(default_factory=time.monotonic)
    """Start of the search in this process, on the monotonic clock, s."""

    @property
    def spent(self) -> Spent:
        """The costs so far."""
        return Spent(self.trials, self.usd, self.gpu_seconds)

    @property
    def elapsed_s(self) -> float:
        """Seconds since this process started the search."""
        return time.monotonic() - self.started

    @property
    def actions_open(self) -> int:
        """The number of open runs that are actions."""
        return len([run for run in self.open.values() if isinstance(run.making, Action)])

    def carried_over(self, spent: Spent) -> "Ledger":
        """The ledger with the costs of earlier processes of the same search."""
        return self.counted(spent.trials).paid(spent.usd)._with_gpu_time(spent.gpu_seconds)

    def counted(self, trials: int) -> "Ledger":
        """The ledger with `trials` more trials, or fewer where it is negative."""
        return replace(self, trials=self.trials + trials)

    def paid(self, usd: float) -> "Ledger":
        """The ledger after LLM calls that cost `usd`."""
        return replace(self, usd=self.usd + usd)

    def used(self, seconds: float, gpus: int, processes: int = 1) -> "Ledger":
        """The ledger after one more job, failed or not, that held `gpus` for each process for `seconds`."""
        return self._with_gpu_time(gpu_seconds(seconds, gpus, processes))

    def opened(self, run_id: str, run: OpenRun) -> "Ledger":
        """The ledger with `run` open, in place of an earlier entry of that id."""
        return replace(self, open={**self.open, run_id: run})

    def closed(self, run_id: str) -> "Ledger":
        """The ledger without the open run of that id."""
        return replace(self, open={key: run for key, run in self.open.items() if key != run_id})

    def stopping(self, reason: str | None) -> "Ledger":
        """The ledger with `reason` as the reason to stop, unless it has one; None changes nothing."""
        return replace(self, stop_reason=self.stop_reason or reason)

    def _with_gpu_time(self, seconds: float) -> "Ledger":
        return replace(self, gpu_seconds=self.gpu_seconds + seconds)
