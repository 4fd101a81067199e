"""When failures stop a search: as many in a row as no action of its own can explain."""

from dataclasses import dataclass

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
"""Kinds that neither count nor end a row: nobody knows how the action would have gone."""


@dataclass
class Streak:
    """Counts failures of one kind in a row; data faults count by dataset and errors by their text."""

    limit: int | None
    """Failures that stop the search; None: it never stops for them."""
    length: int = 0
    _cause: tuple[str, ...] = ()

    def succeeded(self) -> None:
        """An action gave a model: the row is over."""
        self.length, self._cause = 0, ()

    def failed(self, action: Action, failed: Failed) -> str:
        """Count a failure; why the search must stop, and what to do, or an empty string."""
        if failed.kind in NEUTRAL:
            return ""
        if failed.kind not in ADVICE:
            self.succeeded()
            return ""
        cause = _cause(action, failed)
        self.length = self.length + 1 if cause == self._cause else 1
        self._cause = cause
        if self.limit is None or self.length < self.limit:
            return ""
        return (
            f"{self.length} actions in a row failed with {failed.kind}, the last one with: {failed.reason}\n"
            f"What to do: {ADVICE[failed.kind]}; then the same command goes on from the store "
            "(search.failures_in_a_row is the limit, null for none)"
        )


def _cause(action: Action, failed: Failed) -> tuple[str, ...]:
    if failed.kind == "bad_data":
        return (failed.kind, *sorted(d.fingerprint for d in action.datasets))
    return (failed.kind, failed.reason) if failed.kind == "error" else (failed.kind,)
