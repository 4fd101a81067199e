"""What a search may spend, and whether the next action still fits."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from lamdagent.config import BudgetConfig

LEAST_S = 1.0
"""What a job gets however little is left: it is ended by its executor, in the usual way."""


@dataclass(frozen=True)
class Spent:
    """What a search has had."""

    trials: int = 0
    usd: float = 0.0
    gpu_seconds: float = 0.0


@dataclass
class Budget:
    """Counts what is spent; asked before every action, and for how long a job may run."""

    limits: BudgetConfig
    trials: int = 0
    """Actions of this search, those before a restart included."""
    usd: float = 0.0
    """LLM bill, that of earlier processes of this search included."""
    gpu_seconds: float = 0.0
    """GPU time of every job, failed ones and earlier processes included."""
    gpus: int = 0
    """How many a job uses here."""
    at_once: int = 1
    """Jobs that run side by side."""
    share: float = 1.0
    """How much of the time and GPU hours may be used up to now; the rest is for later rungs of a ladder."""
    started: float = field(default_factory=time.monotonic)

    def carry_over(self, spent: Spent) -> None:
        """Add what earlier processes of the same search have spent."""
        self.trials += spent.trials
        self.usd += spent.usd
        self.gpu_seconds += spent.gpu_seconds

    @property
    def spent(self) -> Spent:
        """Everything so far."""
        return Spent(self.trials, self.usd, self.gpu_seconds)

    @property
    def elapsed_s(self) -> float:
        """Since this process started the search."""
        return time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Time that a job may still take, by the clock and by the GPU hours; infinite without a limit."""
        return min(self._clock_left_s, self._gpu_left_s)

    @property
    def _clock_left_s(self) -> float:
        minutes = self.limits.wall_clock_minutes
        return float("inf") if minutes is None else minutes * 60 * self.share - self.elapsed_s

    @property
    def _gpu_left_s(self) -> float:
        hours = self.limits.gpu_hours
        if hours is None or not self.gpus:
            return float("inf")
        return (hours * 3600 * self.share - self.gpu_seconds) / (self.gpus * self.at_once)

    def limit_s(self, own_s: float, reserve_s: float = 0.0) -> float:
        """How long a job may run that has a limit of its own, so that `reserve_s` is left after it."""
        return min(own_s, max(LEAST_S, self.left_s - reserve_s))

    def ended(self, next_s: float = 0.0, reserve_s: float = 0.0) -> str:
        """Why no further action may start, or an empty string.

        `next_s` is what it is expected to take and `reserve_s` what the final test will; both in seconds.
        """
        return next(self._reasons(next_s + reserve_s), "")

    def over(self) -> str:
        """Which limit has ended a job, for a person."""
        limits = self.limits
        if self._clock_left_s <= self._gpu_left_s:
            return f"ended with the budget of {limits.wall_clock_minutes:g} minutes, less what the final test takes"
        return f"ended with the budget of {limits.gpu_hours:g} GPU hours, less what the final test takes"

    def _reasons(self, needed_s: float) -> Iterator[str]:
        limits = self.limits
        if limits.trials is not None and self.trials >= limits.trials:
            yield f"{limits.trials} trials are done"
        if limits.usd is not None and self.usd >= limits.usd:
            yield f"the LLM has cost {self.usd:.2f} USD of {limits.usd:g}"
        of = "" if self.share == 1 else f"{self.share:.0%} of "
        if limits.gpu_hours is not None and self.gpu_seconds >= limits.gpu_hours * 3600 * self.share:
            yield f"{of}{limits.gpu_hours:g} GPU hours are used"
        if self._clock_left_s < needed_s:
            yield f"the next action would not fit into {of}{limits.wall_clock_minutes:g} minutes with the final test"
        if self._gpu_left_s < needed_s:
            yield f"the next action would not fit into {of}{limits.gpu_hours:g} GPU hours with the final test"
