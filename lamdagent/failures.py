"""What a search does about failures: try again with less memory, and stop when the same thing fails again and again."""

from dataclasses import dataclass, replace

from lamdagent.errors import SearchStopped
from lamdagent.execution.executor import Failed, Job

NOT_COUNTED = ("interrupted", "budget")
"""Kinds that the user wanted."""
ADVICE = {
    "out_of_memory": "use a smaller micro_batch_size or max_length, or LoRA instead of full training",
    "no_space": "make space, or point tracking.uri and TMPDIR at a larger disk",
    "bad_data": "look at the dataset that the failed runs name",
    "bad_model": "look at the model that the failed runs name",
    "nan_loss": "lower the learning rates",
    "timeout": "raise timeout_minutes of the action, or lower its steps",
    "lost_worker": "look at the machine's log: something ends the worker process",
}
"""Failure kind -> what to do, for the most usual ones."""


def with_smaller_batches(job: Job, failed: Failed) -> Job | None:
    """The same job with a quarter of the rows in memory at once, after it ran out of it; None where that cannot help.

    The effective batch stays: `micro_batch_size` only says how many rows of a step are in memory together.
    """
    inputs = job.arguments.get("inputs", {})
    micro = min(inputs.get("micro_batch_size", 1), inputs.get("batch_size", 1))
    if failed.kind != "out_of_memory" or micro <= 1:
        return None
    return replace(job, arguments={**job.arguments, "inputs": {**inputs, "micro_batch_size": max(1, micro // 4)}})


@dataclass
class Streak:
    """Failures of one kind in a row, since this process started."""

    limit: int | None
    kind: str = ""
    length: int = 0

    def succeeded(self) -> None:
        """An action ended well."""
        self.kind, self.length = "", 0

    def failed(self, failure: Failed) -> None:
        """Count a failure whose run is closed.

        Raises:
            SearchStopped: it is one too many.
        """
        if failure.kind in NOT_COUNTED:
            return
        self.length = self.length + 1 if failure.kind == self.kind else 1
        self.kind = failure.kind
        if self.limit is not None and self.length >= self.limit:
            advice = ADVICE.get(failure.kind, "look at the failed runs")
            raise SearchStopped(
                f"{self.length} actions in a row failed alike ({failure.kind}), the last one: {failure.reason} "
                f"What to do: {advice}; the same command then goes on. search.max_failures={self.limit} sets the limit."
            )
