"""What a search may spend, and whether the next action still fits."""

import time
from dataclasses import dataclass, field

from lamdagent.config import BudgetConfig


@dataclass
class Budget:
    """Counts what is spent; asked before every action."""

    limits: BudgetConfig
    trials: int = 0
    """Actions of this search, those before a restart included."""
    usd: float = 0.0
    gpu_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Since this process started the search."""
        return time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Wall-clock time left; infinite without a limit."""
        minutes = self.limits.wall_clock_minutes
        return float("inf") if minutes is None else minutes * 60 - self.elapsed_s

    def ended(self, next_s: float = 0.0, reserve_s: float = 0.0) -> str:
        """Why no further action may start, or an empty string.

        `next_s` is what it is expected to take and `reserve_s` what the final test will; both in seconds.
        """
        limits = self.limits
        if limits.trials is not None and self.trials >= limits.trials:
            return f"{limits.trials} trials are done"
        if limits.usd is not None and self.usd >= limits.usd:
            return f"the LLM has cost {self.usd:.2f} USD of {limits.usd:g}"
        if limits.gpu_hours is not None and self.gpu_seconds >= limits.gpu_hours * 3600:
            return f"{limits.gpu_hours:g} GPU hours are used"
        if self.left_s < next_s + reserve_s:
            return f"the next action would not fit into {limits.wall_clock_minutes:g} minutes with the final test"
        return ""
