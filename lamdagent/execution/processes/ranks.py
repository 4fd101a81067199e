"""One call in several processes at once: accelerate's launcher starts them, the worker answers for them.

    worker -- launch.py (accelerate's launcher) -- rank.py, once per process

The kernel kills a process of this tree together with its parent, also one that hangs.
"""

import ctypes
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import yaml

from lamdagent.errors import ActionFailed
from lamdagent.execution.executor import Failed, Job
from lamdagent.execution.oom import OomWatch
from lamdagent.execution.progress import Progress, Report

SETTINGS, JOB, SAID = "accelerate.yaml", "job", "stderr"
"""Files of a launch: accelerate's configuration, the pickled job, and what the processes print."""

PR_SET_PDEATHSIG = 1
"""Linux, prctl(2)."""

MOST = 1500
"""Characters of a message's longest part: below 4,096 bytes, writes of several processes to one pipe do not mix."""


@dataclass
class Ends:
    """Ends of processes that did not end well, as far as they are known."""

    failed: list[Failed] = field(default_factory=list)
    """Failures that they reported themselves, the first first."""
    exits: dict[str, int] = field(default_factory=dict)
    """Rank -> exit code, negative for a signal, as the launcher saw it."""


def run(job: Job, settings: Mapping[str, Any], report: Report) -> None:
    """Make `job`'s call in every process of `settings` (accelerate's launch configuration); only rank 0 is reported.

    The time limit is that of the job which calls this. When it returns or raises, none of the processes is left.

    Raises:
        ActionFailed: with the reason and kind that a process gave, or how one of them ended without a word.
    """
    with TemporaryDirectory(prefix="lamdagent-ranks-") as name:
        folder = Path(name)
        (folder / SETTINGS).write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
        (folder / JOB).write_bytes(pickle.dumps(job))
        watch = OomWatch.of(os.getpid())
        ends = Ends()
        command = [sys.executable, "-m", "lamdagent.execution.processes.launch", name, str(os.getpid())]
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        with (
            (folder / SAID).open("w") as said,
            subprocess.Popen(command, stderr=said, env=_environment(settings), **streams) as launcher,
        ):
            try:
                _listen(launcher.stdout, job, report, ends)
            except BaseException:
                launcher.kill()
                raise
        if launcher.returncode:
            raise _explained(ends, watch, (folder / SAID).read_text(errors="replace"))


def _environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """With `use_cpu` the processes see no GPU: accelerate's own launcher says so only to a single process."""
    return {**os.environ, **({"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""} if settings["use_cpu"] else {})}


def _listen(stream: IO[bytes] | None, job: Job, report: Report, ends: Ends) -> None:
    """Until the last process is gone."""
    for kind, values in _messages(stream or ()):
        if kind == "update":
            report(Progress(**values))
        elif kind == "failed":
            ends.failed.append(Failed(job.id, **values))
        else:
            ends.exits |= values


def _messages(stream: Iterable[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in stream:
        try:
            kind, values = json.loads(line)
        except ValueError:
            continue  # a library's print
        yield kind, values


def _explained(ends: Ends, watch: OomWatch, said: str) -> ActionFailed:
    """The cause before its consequences: when one process ends, the others lose their connection to it."""
    for failed in ends.failed:
        if failed.kind != "error":
            return ActionFailed(failed.reason, failed.kind)
    struck = {rank: -code for rank, code in ends.exits.items() if code < 0 and code != -signal.SIGTERM}
    for rank, number in struck.items():
        if number == signal.SIGKILL and watch.struck():
            return ActionFailed(f"out of memory: the kernel killed the process of rank {rank} for it", "out_of_memory")
        return ActionFailed(f"the process of rank {rank} was ended by {signal.Signals(number).name}", "lost_worker")
    if ends.failed:
        failed = ends.failed[0]
        return ActionFailed(failed.reason, failed.kind)
    last = said.strip().splitlines()[-1:] or ["nothing was said"]
    return ActionFailed(f"accelerate could not run the processes: {last[0][:MOST]}")


def send(kind: str, values: Mapping[str, Any], stream: int) -> None:
    """One message to the worker, from any process of the tree, in one write."""
    cut = {key: value[-MOST:] if key == "details" else value for key, value in values.items()}
    if "reason" in cut:
        cut["reason"] = cut["reason"][:MOST]
    os.write(stream, json.dumps([kind, cut]).encode() + b"\n")


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the process `parent`, which started it, ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before
        os._exit(1)
