"""A kind of data: questions with reasoning steps, each of them judged."""

from typing import Any

from lamdagent.objects.kinds import DatasetKind


def as_pairs(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The rows that TRL's SFT trainer reads: only the steps that are right."""
    right = [[step for step, ok in zip(row["steps"], row["right"], strict=True) if ok] for row in rows]
    return [{"prompt": row["question"], "completion": " ".join(kept)} for row, kept in zip(rows, right, strict=True)]


def fault(row: dict[str, Any]) -> str:
    """What makes a row useless; empty where it teaches something."""
    return "" if len(row["right"]) == len(row["steps"]) else "not every step is judged"


STEPS = DatasetKind(("question",), labels=("steps", "right"), fault=fault, to_trl=as_pairs)


def rows() -> list[dict[str, Any]]:
    """A dataset of that kind."""
    asked = [(a, b) for a in range(4) for b in range(4)]
    return [{"question": f"{a} + {b}?", "steps": [f"{a}", f"{a + b}"], "right": [True, True]} for a, b in asked]
