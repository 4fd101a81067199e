"""The items of tasks for a driver without lm-eval: read in a process of their own, and kept where nothing can go stale.

Kept are items of this package's own tasks that come from a released wheel, known by its SHA-256, or from a program:
they change with the package's code, which is part of their file's name. What a hub, a file or a function of the user
gives may change at any time, so it is read at every start.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from lamdagent.errors import UserError
from lamdagent.evaluation.backends import BACKENDS, load_backend
from lamdagent.evaluation.fingerprint import BUILTIN, task_files, task_fingerprint, task_folder
from lamdagent.evaluation.task import DataUnavailable, Item, Task
from lamdagent.execution.executor import Executor, Failed, Finished, Job
from lamdagent.execution.inline import InlineExecutor
from lamdagent.execution.local import LocalExecutor
from lamdagent.execution.progress import Report
from lamdagent.files import cache_folder, write_atomic

FIXED = {"functions.py", "letters.py", "pico_functions.py"}
"""Modules beside our tasks whose items this package's code decides; skills.py reads hub data."""
LIBRARIES = ("lm_eval", "datasets", "jinja2")
"""Libraries that read the items; another version may read other items."""

Found = list[Item] | UserError | DataUnavailable
"""The items of a task, or why they cannot be had, as `Backend.items` raises it."""


def items_of(tasks: Sequence[Task], inline: bool = False) -> list[Found]:
    """Result of `Backend.items` for each task; `inline`: items that are not cached are read in this process."""
    places = [_place(task) for task in tasks]
    kept = [_recalled(task, place) for task, place in zip(tasks, places, strict=True)]
    fresh = _fresh([task for task, found in zip(tasks, kept, strict=True) if found is None], inline)
    every: list[Found] = []
    for known, place in zip(kept, places, strict=True):
        found = next(fresh) if known is None else known
        if known is None and place is not None and isinstance(found, list):
            _keep(found, place)
        every.append(found)
    return every


def read(report: Report, *, task: Task) -> Found:
    """`Backend.items` as a job: its faults are values, so that they cross to another process as they are."""
    try:
        return load_backend(task.backend).items(task)
    except (UserError, DataUnavailable) as error:
        return error


def _fresh(tasks: Sequence[Task], inline: bool) -> Iterator[Found]:
    """Read one after another, in one process that ends with this generator."""
    if not tasks:
        return
    worker: Executor = InlineExecutor() if inline else LocalExecutor(warm_up=())
    try:
        for task in tasks:
            worker.submit(Job(task.name, f"{__name__}:read", {"task": task}, timeout_s=math.inf))
            yield _answer(worker)
    finally:
        worker.close()


def _answer(worker: Executor) -> Found:
    while True:
        event = worker.next_event(60.0)
        if isinstance(event, Finished):
            return event.value  # type: ignore[no-any-return]
        if isinstance(event, Failed):
            return DataUnavailable(event.reason)


def _place(task: Task) -> Path | None:
    """Cache file of the items of `task`; None: they are not cached, since they may change while its name would not."""
    modules = {path.name for path in task_files(task) if path.suffix == ".py"}
    if (
        task.backend not in BACKENDS
        or task_folder(task) != BUILTIN
        or task.options
        or not modules
        or not modules <= FIXED
    ):
        return None
    package = Path(__file__).parents[1]
    code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(package.rglob("*.py"))]
    versions = [metadata.version(library) for library in LIBRARIES]
    parts = [task_fingerprint(task), task.question, versions, code]
    return cache_folder() / "items" / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.json"


def _recalled(task: Task, place: Path | None) -> list[Item] | None:
    """None where nothing is kept, or what is kept is broken."""
    try:
        rows = json.loads(place.read_text(encoding="utf-8"))["items"] if place else None
        return [Item(task.name, split, key, question) for split, key, question in rows] if rows else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(found: Sequence[Item], place: Path) -> None:
    rows = [(item.split, item.id, item.question) for item in found]
    with contextlib.suppress(OSError):  # it would only have saved time
        write_atomic(place, json.dumps({"items": rows}))
