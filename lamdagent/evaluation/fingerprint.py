"""Which evaluation gave a score: light, so that the driver can ask without torch."""

import hashlib
import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from lamdagent.errors import UserError
from lamdagent.evaluation.backends import BACKENDS, backend_version
from lamdagent.evaluation.task import Task

BUILTIN = Path(__file__).parent / "tasks"
"""Folder of the tasks that come with this package; `builtin` in the configuration."""


def task_folder(task: Task) -> Path | None:
    """The folder that holds the task's YAML; None for the tasks that lm-eval ships.

    Raises:
        UserError: there is no such folder.
    """
    if not task.folder:
        return None
    folder = BUILTIN if task.folder == "builtin" else Path(task.folder).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"Task {task.name}: the folder {task.folder!r} does not exist. "
            "Give a folder of lm-eval YAML tasks, `builtin` for ours, or nothing for the tasks that lm-eval ships."
        )
    return folder


def task_fingerprint(task: Task) -> str:
    """Hex digest of what decides a score on the task's own scale: settings, files, the version of what scores.

    Raises:
        UserError: the task's folder does not exist.
    """
    parts: dict[str, Any] = {
        "settings": [task.task, task.metric, dict(task.splits), dict(task.limits), dict(task.options)],
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in task_files(task)},
    }
    if task.backend in BACKENDS:
        parts["lm_eval"] = metadata.version("lm_eval")
    else:
        parts["version"] = backend_version(task.backend)
    if task.backend != "hf":  # the others round otherwise: a score of theirs is no score of transformers
        parts["backend"] = task.backend
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def task_files(task: Task) -> list[Path]:
    """The task's YAML, what it includes, and the modules beside it whose functions it names; sorted.

    Raises:
        UserError: the task's folder does not exist.
    """
    folder = task_folder(task)
    names = re.compile(rf"^task:\s*[\"']?{re.escape(task.task)}[\"']?\s*(#.*)?$", re.MULTILINE)
    waiting = [path for path in folder.rglob("*.yaml") if names.search(path.read_text("utf-8"))] if folder else []
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting += _named(path) if path.suffix == ".yaml" else []
    return sorted(found)


def _named(path: Path) -> list[Path]:
    text = path.read_text(encoding="utf-8")
    included = re.findall(r"^include:\s*[\"']?([^\s\"'#]+)", text, re.MULTILINE)
    modules = re.findall(r"!function\s+([\w.]+)\.\w+", text)
    return [path.parent / name for name in included] + [
        path.parent / f"{module.replace('.', '/')}.py" for module in modules
    ]
