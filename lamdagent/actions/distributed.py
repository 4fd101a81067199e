"""One training over several processes: each runs the step of a single one, on its share of the rows."""

import dataclasses
import math
from typing import Any

from lamdagent.actions.context import Context, Loaded, Step, ignore_progress
from lamdagent.execution.executor import Job
from lamdagent.execution.processes import ranks
from lamdagent.execution.processes.rank import first_rank
from lamdagent.execution.progress import Report


def in_processes(step: Step, context: Context) -> Loaded:
    """Run `step` in all processes of `context.accelerate`; the model that rank 0 saved in `context.output`.

    Raises:
        ActionFailed: as `step.run` does, or a process was lost.
    """
    import torch

    torch.cuda.empty_cache()  # what this process keeps for later is the first process's memory now; no-op on a CPU
    given = {key: getattr(context, key) for key in ("output", "seed", "data_fraction", "adapter")}
    arguments = {"step": step, "processes": int(context.accelerate["num_processes"]), **given}
    job = Job("ranks", "lamdagent.actions.distributed:run_rank", arguments, math.inf)
    ranks.run(job, context.accelerate, context.report)
    return context.load(str(context.output))


def run_rank(report: Report, *, step: Step, **context: Any) -> None:
    """This process's part of `in_processes`; rank 0 saves what comes out."""
    from accelerate import PartialState

    here = Context(report=report, **context)
    if not first_rank():
        here = dataclasses.replace(here, report=ignore_progress, adapter=None)
    for part in step.run(here):
        if first_rank():
            part.save_pretrained(here.output)
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
