"""The second try of a job that ran out of memory: fewer rows at once, as many per optimizer step."""

import dataclasses

from lamdagent.actions.action import MICRO
from lamdagent.actions.methods import method_of
from lamdagent.actions.recipe import micro_batch
from lamdagent.execution.executor import Failed, Finished, Job


def with_less_memory(job: Job, failed: Failed, phase: str) -> Job | None:
    """`job` with at most half the rows at once, after it ran out of memory; None where that cannot help.

    It cannot help after any other failure, without a micro-batch (a merge), with the fewest rows that the method takes
    (1, or 2 for KTO), or when the evaluation ran out of memory (`phase`: the job's last `Progress.phase`).
    """
    inputs = job.arguments.get("inputs", {})
    batch, most = inputs.get("batch_size"), inputs.get(MICRO)
    if failed.kind != "out_of_memory" or phase.startswith("evaluate"):
        return None
    if not isinstance(batch, int) or not isinstance(most, int):
        return None
    whole = batch // job.arguments.get("accelerate", {}).get("num_processes", 1)  # the share of each process
    method = method_of(job.arguments.get("function", ""))
    least = method.least if method else 1
    if whole < least or most < 1:
        return None
    rows = micro_batch(whole, most, least)
    fewer = micro_batch(whole, rows // 2, least)
    if fewer >= rows:
        return None
    smaller = {**inputs, MICRO: fewer}
    return dataclasses.replace(job, arguments={**job.arguments, "inputs": smaller})


def rows_at_once(job: Job) -> int:
    """The micro-batch of a job that `with_less_memory` made."""
    return int(job.arguments["inputs"][MICRO])


def both(first: Failed, second: Finished | Failed) -> Finished | Failed:
    """The end of the second try, with the time of both."""
    return dataclasses.replace(second, seconds=first.seconds + second.seconds)
