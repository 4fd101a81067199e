"""The second try of a job that ran out of memory: fewer rows at once, as many per optimizer step."""

import dataclasses
import importlib
import inspect

from lamdagent.actions.action import MICRO
from lamdagent.actions.limits import AtLeast, limits_of
from lamdagent.actions.training import micro_batch
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
    least = _least_rows(job.arguments.get("function", ""))
    if whole < least or most < 1:
        return None
    rows = micro_batch(whole, most, least)
    fewer = micro_batch(whole, rows // 2, least)
    if fewer >= rows:
        return None
    smaller = {**inputs, MICRO: fewer}
    return dataclasses.replace(job, arguments={**job.arguments, "inputs": smaller})


def _least_rows(function: str) -> int:
    """Fewest rows at once that an action's `module:function` can do with, as the limit of its parameter says."""
    if not function.startswith("lamdagent."):
        return 1  # a user's own: nothing is imported for this
    module, _, name = function.partition(":")
    parameter = inspect.signature(getattr(importlib.import_module(module), name)).parameters.get(MICRO)
    limits = limits_of(parameter.annotation) if parameter else ()
    return max((int(limit.least) for limit in limits if isinstance(limit, AtLeast)), default=1)


def rows_at_once(job: Job) -> int:
    """The micro-batch of a job that `with_less_memory` made."""
    return int(job.arguments["inputs"][MICRO])


def both(first: Failed, second: Finished | Failed) -> Finished | Failed:
    """The end of the second try, with the time of both."""
    return dataclasses.replace(second, seconds=first.seconds + second.seconds)
