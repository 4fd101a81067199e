"""The second try of a job that ran out of memory: fewer rows at once, as many per optimizer step."""

import dataclasses

from lamdagent.actions.training import micro_batch
from lamdagent.execution.executor import Failed, Finished, Job

MICRO = "micro_batch_size"
"""The hyperparameter that says how many rows are in memory at once; `batch_size` beside it stays as it is."""


def with_less_memory(job: Job, failed: Failed, phase: str) -> Job | None:
    """`job` with at most half the rows at once, after it `failed`; None where that cannot help.

    That is after any other failure, without a micro-batch (a merge), with one of 1 row, and when the model had been
    made and its evaluation ran out of memory (`phase`: the job's last `Progress.phase`).
    """
    inputs = job.arguments.get("inputs", {})
    batch, most = inputs.get("batch_size"), inputs.get(MICRO)
    if failed.kind != "out_of_memory" or phase.startswith("evaluate"):
        return None
    if not isinstance(batch, int) or not isinstance(most, int):
        return None
    whole = batch // job.arguments.get("accelerate", {}).get("num_processes", 1)  # the share of each process
    if min(whole, most) < 2:
        return None
    rows = micro_batch(whole, most)
    if rows == 1:
        return None
    smaller = {**inputs, MICRO: micro_batch(whole, rows // 2)}
    return dataclasses.replace(job, arguments={**job.arguments, "inputs": smaller})


def rows_at_once(job: Job) -> int:
    """The micro-batch of a job that `with_less_memory` made."""
    return int(job.arguments["inputs"][MICRO])


def both(first: Failed, second: Finished | Failed) -> Finished | Failed:
    """How the second try ended, with the time of both."""
    return dataclasses.replace(second, seconds=first.seconds + second.seconds)
