"""Rows that an action made of a model's own answers against the tasks' items, before anything is trained on them.

The door compares what is there when a search begins; these rows come later, and a model that has seen an evaluation
item may well write it down.
"""

from collections.abc import Callable, Sequence
from functools import partial

from lamdagent.errors import ActionFailed
from lamdagent.evaluation.backends import load_backend
from lamdagent.evaluation.task import DataUnavailable, Item, Task
from lamdagent.objects.gathered import Gathered

NAME = "answers that the model gave itself"
ADVICE = "other seeds draw other answers, and evaluation.overlap=warn goes on with them, which is reported"


def comparison(overlap: str, tasks: Sequence[Task]) -> Callable[[Gathered], str]:
    """Function by which `Context.check` compares rows with the items of `tasks`; `overlap`: refuse, warn or off."""
    return partial(_compared, overlap, tasks)


def _compared(overlap: str, tasks: Sequence[Task], made: Gathered) -> str:
    """One line about rows that hold items, or could not be compared with them; empty where all is well.

    Raises:
        ActionFailed: kind `bad_data`: rows hold items, and the user has not let them pass. No row is left out: which
            ones would depend on the tasks, and equal fingerprints must make equal models.
    """
    from lamdagent.evaluation.contamination import leaks_among, summary, told

    if overlap == "off":
        return ""
    every, away = _items(tasks)
    found = leaks_among(NAME, made.kind, made.rows, every)
    if found and overlap == "refuse":
        raise ActionFailed(f"{told(found)} ({NAME}); {ADVICE}.", kind="bad_data")
    return " ".join(part for part in (summary(found), *away) if part)


def _items(tasks: Sequence[Task]) -> tuple[list[Item], list[str]]:
    """The items of all splits, and a sentence for each task whose items cannot be had."""
    every: list[Item] = []
    away = []
    for task in tasks:
        try:
            every += load_backend(task.backend).items(task)
        except DataUnavailable as error:
            away.append(f"No {NAME} were compared with the items of {task.name}: {error}.")
    return every, away
