"""Failures in a row that no action of its own can explain: they stop the search."""

from dataclasses import dataclass, replace

from lamdagent.actions.action import Action
from lamdagent.execution.executor import Failed

ADVICE = {
    "no_space": "free some space where artifacts and temporary files are (`python -m lamdagent prune` finds some)",
    "lost_worker": "look for what ends the worker: the machine's memory and drivers, a queue's limits",
    "bad_data": "mend the dataset or take it out of `datasets`",
    "error": "mend what it says; failure.txt on the failed runs has the traceback",
}
"""Kind -> what a person can do. Others (out_of_memory, nan_loss, timeout) are the action's own: the policy learns."""

NEUTRAL = ("interrupted", "orphan", "budget")
"""Kinds that neither count nor end a streak: the action did not come to its own end."""


@dataclass(frozen=True)
class FailureStreak:
    """Failures with one cause in a row; data faults are told apart by dataset and errors by their text."""

    limit: int | None = None
    """The number of failures that stops the search; None: none does."""
    length: int = 0
    cause: tuple[str, ...] = ()
    """Failure kind, then the dataset or the text."""
    stop_reason: str | None = None
    """Why the search must stop and what a person can do; None below the limit."""

    def succeeded(self) -> "FailureStreak":
        """The streak after an action that gave a model: empty."""
        return FailureStreak(self.limit)

    def failed(self, action: Action, failed: Failed) -> "FailureStreak":
        """The streak after one more failure."""
        if failed.kind in NEUTRAL:
            return self
        if failed.kind not in ADVICE:
            return self.succeeded()
        cause = _cause(action, failed)
        length = self.length + 1 if cause == self.cause else 1
        longer = replace(self, length=length, cause=cause, stop_reason=None)
        if self.limit is None or length < self.limit:
            return longer
        return replace(longer, stop_reason=_message(length, failed))


def _cause(action: Action, failed: Failed) -> tuple[str, ...]:
    if failed.kind == "bad_data":
        return (failed.kind, *sorted(d.fingerprint for d in action.datasets))
    return (failed.kind, failed.reason) if failed.kind == "error" else (failed.kind,)


def _message(length: int, failed: Failed) -> str:
    return (
        f"{length} actions in a row failed with {failed.kind}, the last one with: {failed.reason}\n"
        f"What to do: {ADVICE[failed.kind]}; then the same command goes on from the store "
        "(search.failures_in_a_row is the limit, null for none)"
    )
