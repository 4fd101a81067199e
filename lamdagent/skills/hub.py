"""Rows of a hub data set, or of a local folder that holds the same columns; and who sees which held-out item."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lamdagent.errors import UserError
from lamdagent.objects.hub import cache_only

Row = dict[str, Any]
Rows = list[Row]


def load(source: str, subset: str | None, split: str, columns: Sequence[str]) -> Rows:
    """The `columns` of one official split; `source` is a hub id, or a folder with files such as `<split>.jsonl`.

    Raises:
        UserError: it cannot be had, or lacks a column.
    """
    from datasets import load_dataset

    local = Path(source).expanduser()
    given, name = (str(local), None) if local.is_dir() else (source, subset)
    try:
        with cache_only(not local.is_dir() and _no_hub(source)):
            found = load_dataset(given, name, split=split)
        return list(found.select_columns(list(columns)))
    except Exception as error:  # the hub's own, the file system's, the parsers': all mean that it cannot be had now
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        wanted = f"{source!r} does not give the columns {', '.join(columns)} of its split {split!r} ({reason})"
        raise UserError(f"{wanted}; check the network, or give a local folder as `source`") from None


def _no_hub(source: str) -> bool:
    import httpx
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(source, timeout=10)
    except httpx.TransportError:
        return True
    except Exception:  # the hub has answered: load_dataset will say what it does not like
        return False
    return False


def words(question: str) -> str:
    """The question without what does not matter: equal ones are one item."""
    return " ".join(question.lower().split())


def split_of(question: str) -> Literal["search", "test"]:
    """Which half of the official held-out items this one is in; a hash decides, so that it stays there for good."""
    return "search" if hashlib.sha256(words(question).encode()).digest()[0] % 2 else "test"
