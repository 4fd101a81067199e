"""The limits of a phase: whether one more action may start under them, and for how long a job may run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lamdagent.config import BudgetConfig
from lamdagent.loop.ledger import Ledger

LEAST_S = 1.0
"""Shortest timeout of a job, however little time is left: its executor then ends it in the usual way."""


@dataclass(frozen=True)
class Limits:
    """The budget of a search, as far as a phase may use it up."""

    budget: BudgetConfig
    gpus: int = 0
    """The number of GPUs that a job uses here."""
    at_once: int = 1
    """The number of jobs that run side by side."""
    share: float = 1.0
    """Share of the time and GPU hours that may be used up by the end of the phase; the rest is for later rungs."""

    def without_trials(self) -> "Limits":
        """The same without a number of trials, for phases that choose nothing."""
        return replace(self, budget=replace(self.budget, trials=None))

    def left_s(self, ledger: Ledger) -> float:
        """Seconds that a job may still take, by the clock and by the GPU hours; infinite without a limit."""
        return min(self._clock_left_s(ledger), self._gpu_left_s(ledger))

    def timeout_s(self, ledger: Ledger, own_s: float, reserve_s: float = 0.0) -> float:
        """The timeout of a job whose own limit is `own_s`, so that `reserve_s` is left after it."""
        return min(own_s, max(LEAST_S, self.left_s(ledger) - reserve_s))

    def reached(self, ledger: Ledger, needed_s: float = 0.0) -> str | None:
        """Why no further action may start; None where one may.

        `needed_s`: the expected time of the next action and of the final test.
        """
        return next(self._reasons(ledger, needed_s), None)

    def cut_off_reason(self, ledger: Ledger) -> str:
        """A message that names the limit that has ended a job."""
        budget = self.budget
        if self._clock_left_s(ledger) <= self._gpu_left_s(ledger):
            return f"ended with the budget of {budget.wall_clock_minutes:g} minutes, less what the final test takes"
        return f"ended with the budget of {budget.gpu_hours:g} GPU hours, less what the final test takes"

    def _clock_left_s(self, ledger: Ledger) -> float:
        minutes = self.budget.wall_clock_minutes
        return float("inf") if minutes is None else minutes * 60 * self.share - ledger.elapsed_s

    def _gpu_left_s(self, ledger: Ledger) -> float:
        hours = self.budget.gpu_hours
        if hours is None or not self.gpus:
            return float("inf")
        return (hours * 3600 * self.share - ledger.gpu_seconds) / (self.gpus * self.at_once)

    def _reasons(self, ledger: Ledger, needed_s: float) -> Iterator[str]:
        budget = self.budget
        if budget.trials is not None and ledger.trials >= budget.trials:
            yield f"{budget.trials} trials are done"
        if budget.usd is not None and ledger.usd >= budget.usd:
            yield f"the LLM has cost {ledger.usd:.2f} USD of {budget.usd:g}"
        of = "" if self.share == 1 else f"{self.share:.0%} of "
        if budget.gpu_hours is not None and ledger.gpu_seconds >= budget.gpu_hours * 3600 * self.share:
            yield f"{of}{budget.gpu_hours:g} GPU hours are used"
        if self._clock_left_s(ledger) < needed_s:
            yield f"the next action would not fit into {of}{budget.wall_clock_minutes:g} minutes with the final test"
        if self._gpu_left_s(ledger) < needed_s:
            yield f"the next action would not fit into {of}{budget.gpu_hours:g} GPU hours with the final test"
