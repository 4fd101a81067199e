"""What the YAML files beside this one refer to: items, worked examples, judgement. lm-eval calls these functions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lamdagent.tooluse import bfcl, constraints
from lamdagent.tooluse.checker import judge
from lamdagent.tooluse.prompt import EXAMPLES, NONE, SYSTEM, ask

Rows = list[dict[str, Any]]
SPLITS: tuple[bfcl.ItemSplit, ...] = ("search", "test")


def calls(**_: Any) -> Any:
    """Items with one right call, as `datasets.Dataset`s by split; lm-eval passes the task's metadata."""
    return _splits({split: [_row(item) for item in bfcl.items(split, calls=True)] for split in SPLITS})


def no_calls(**_: Any) -> Any:
    """Items where no function fits."""
    return _splits({split: [_row(item) for item in bfcl.items(split, calls=False)] for split in SPLITS})


def writing(**_: Any) -> Any:
    """Writing tasks with a constraint."""
    return _splits({split: [_task_row(task) for task in constraints.writings(split)] for split in SPLITS})


def examples() -> Rows:
    """The worked examples of the prompt, in order."""
    return [{"id": "", "system": SYSTEM, "prompt": question, "target": answer} for question, answer in EXAMPLES]


def judge_call(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float | str]:
    """1 for the right call."""
    item = bfcl.by_id()[doc["id"]]
    verdict = judge(results[0], item.functions, item.function, item.answers)
    return {"right_call": float(verdict == "right"), "reason": verdict}


def judge_no_call(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float | str]:
    """1 for a reply that is no call; and, stricter, for the word `none`."""
    verdict = judge(results[0], (), "", None)
    said = results[0].strip(" .`'\"\n").lower() == NONE
    return {"no_call": float(verdict == "right"), "said_none": float(said), "reason": verdict}


def judge_writing(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float | str]:
    """1 for a reply that meets its constraint."""
    followed = constraints.by_id()[doc["id"]].followed(results[0])
    return {"followed": float(followed), "reason": "right" if followed else doc["target"]}


def tally(reasons: Sequence[str]) -> str:
    """The reasons with their counts, most frequent first."""
    return ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common())


def _row(item: bfcl.Item) -> dict[str, Any]:
    target = str(item.gold) if item.gold else NONE
    return {"id": item.id, "system": SYSTEM, "prompt": ask(item.functions, item.question), "target": target}


def _task_row(task: constraints.Writing) -> dict[str, Any]:
    return {"id": task.id, "prompt": task.prompt, "target": task.family}


def _splits(rows: dict[str, Rows]) -> Any:
    from datasets import Dataset

    return {split: Dataset.from_list(found) for split, found in rows.items()}
