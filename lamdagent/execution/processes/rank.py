"""One of the processes that ranks.py has started: make the job's call and tell the worker how it goes."""

import dataclasses
import os
import pickle
import sys
from pathlib import Path

from lamdagent.execution.call import call
from lamdagent.execution.executor import Failed
from lamdagent.execution.processes import ranks
from lamdagent.execution.progress import Progress


def main(folder: str, launcher: int) -> int:
    """Make the call; the exit code."""
    ranks.die_with(launcher)
    worker = os.dup(1)
    os.dup2(2, 1)  # what libraries print is not for the worker
    job = pickle.loads((Path(folder) / ranks.JOB).read_bytes())

    def report(progress: Progress) -> None:
        if first_rank():
            ranks.send("update", dataclasses.asdict(progress), worker)

    ended = call(job, report)
    if isinstance(ended, Failed):
        ranks.send("failed", {"reason": ended.reason, "kind": ended.kind, "details": ended.details}, worker)
    return int(isinstance(ended, Failed))


def first_rank() -> bool:
    """Whether this is the process that reports and saves."""
    return os.environ["RANK"] == "0"


if __name__ == "__main__":
    code = main(sys.argv[1], int(sys.argv[2]))
    sys.stderr.flush()
    os._exit(code)  # a failed process must not wait at its end for the others
