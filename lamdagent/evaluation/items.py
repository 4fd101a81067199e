"""The questions of a task, as lm-eval would read them, without a model and without torch."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lamdagent.errors import UserError
from lamdagent.evaluation.harness import load_task
from lamdagent.evaluation.task import DataUnavailable, Item, Split, Task
from lamdagent.objects.hub import cache_only
from lamdagent.objects.sources import hub_answers


def items(task: Task) -> list[Item]:
    """All items of the task's splits, beyond its limits too.

    Raises:
        UserError: lm-eval has no such task or split, or `Task.question` does not fit its items.
        DataUnavailable: the data is neither here nor on a hub that answers.
    """
    with _quiet():
        try:
            return [item for split in task.splits for item in _read(task, "test" if split == "test" else "search")]
        except (UserError, DataUnavailable):
            raise
        except Exception as error:  # the task's own functions may raise anything over the items
            raise DataUnavailable(_first_line(error)) from error


def _read(task: Task, split: Split) -> Iterator[Item]:
    loaded = _loaded(task, split)
    for number, doc in enumerate(loaded.eval_docs):
        yield Item(task.name, split, str(doc.get("id", number)), _question(task, loaded, doc))


def _loaded(task: Task, split: Split) -> Any:
    """The lm-eval task; what was fetched before is used first, since a hub that is away costs minutes."""
    try:
        with cache_only(True):
            return load_task(task, split)["tasks"][task.task]
    except Exception as error:  # datasets', the hub's, the parsers', the task's own: all mean that it cannot be had
        problem = error
    if hub_answers():
        try:
            return load_task(task, split)["tasks"][task.task]
        except Exception as error:
            problem = error
    if isinstance(problem, UserError):
        raise problem
    raise DataUnavailable(_first_line(problem)) from problem


def _question(task: Task, loaded: Any, doc: dict[str, Any]) -> str:
    """Text that tells the item from others: as the user says, as the task says, its `question`, or its whole prompt."""
    if task.question:
        return _rendered(task, doc)
    if loaded.should_decontaminate():
        return str(loaded.doc_to_decontamination_query(doc))
    if isinstance(doc.get("question"), str):
        return str(doc["question"])
    prompt = loaded.doc_to_text(doc)
    return prompt if isinstance(prompt, str) else " ".join(v for v in doc.values() if isinstance(v, str))


def _rendered(task: Task, doc: dict[str, Any]) -> str:
    from jinja2 import TemplateError
    from lm_eval.utils import apply_template

    try:
        return str(doc[task.question] if task.question in doc else apply_template(task.question, doc))
    except (TemplateError, TypeError, ValueError) as error:
        have = ", ".join(sorted(map(str, doc)))
        wanted = f"tasks.{task.name}.question: {task.question!r} is neither a column of its items nor a Jinja template"
        raise UserError(f"{wanted} over them ({error}); they have: {have}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
