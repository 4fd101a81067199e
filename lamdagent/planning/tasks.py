"""From the settings of a task to the task."""

import dataclasses
from pathlib import Path

from lamdagent.config import EvaluationConfig, TaskConfig
from lamdagent.errors import UserError
from lamdagent.evaluation.fingerprint import BUILTIN, task_fingerprint
from lamdagent.evaluation.task import Task
from lamdagent.tracking import schema


def build_task(name: str, settings: TaskConfig, evaluation: EvaluationConfig) -> Task:
    """The task that the settings at `tasks.<name>` declare, with its fingerprint.

    Raises:
        UserError: a name, range or folder makes no sense.
    """
    path = f"tasks.{name}"
    if not settings.task or not settings.metric:
        raise UserError(f"{path}: `task` (lm-eval's name) and `metric` (such as acc,none) are both needed")
    if name in (schema.SCORE, schema.GAIN):
        raise UserError(f"{path}: `{name}` is the name of a metric of our own; call the task otherwise")
    if not settings.low < settings.high:
        raise UserError(f"{path}: low = {settings.low} must be below high = {settings.high}")
    folder = BUILTIN if settings.folder == "builtin" else settings.folder
    if folder and not Path(folder).is_dir():
        raise UserError(f"{path}.folder: there is no folder {settings.folder!r}; `builtin` means the package's own")
    splits = {"search": "validation", "test": "test"} | settings.splits
    values = dataclasses.asdict(settings) | {"folder": str(folder or ""), "splits": splits}
    given = evaluation.vllm if evaluation.backend == "vllm" else {}
    task = Task(name=name, backend=evaluation.backend, backend_options=given, **values)
    return dataclasses.replace(task, fingerprint=task_fingerprint(task))
