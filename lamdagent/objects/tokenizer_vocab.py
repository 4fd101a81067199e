"""Which token each row of a model's embedding stands for, read from its tokenizer's files alone."""

import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WHOLE = ("tokenizer.model", "vocab.txt")
"""Files that are not taken apart here: their bytes stand for their tokens."""
FILES = (*WHOLE, "tokenizer.json", "vocab.json", "added_tokens.json")
"""All that is read."""


@dataclass(frozen=True)
class _Files:
    """Equal for folders whose files are equal, so that models of one family share what is read."""

    folder: Path = field(compare=False)
    contents: tuple[tuple[str, str], ...]
    """Name and checksum."""


def vocabulary(folder: Path) -> dict[str, int]:
    """Token -> row. Files that are not taken apart give one entry that holds their checksum; no files give none.

    Raises:
        ValueError: a file is not what it should be.
    """
    found = [path for name in FILES if (path := folder / name).exists()]
    return _read(_Files(folder, tuple((path.name, _checksum(path)) for path in found)))


def forget() -> None:
    """Give back the memory of all that was read: up to tens of MB a vocabulary."""
    _read.cache_clear()


def comparable(first: dict[str, int], second: dict[str, int]) -> bool:
    """Whether both were read in the same way, so that a difference means something."""
    return _whole(first) == _whole(second)


def digest(tokens: dict[str, int]) -> str:
    """Equal for equal vocabularies: 16 hex digits, empty for none."""
    if not tokens:
        return ""
    return hashlib.sha256(json.dumps(sorted(tokens.items())).encode()).hexdigest()[:16]


def difference(first: dict[str, int], second: dict[str, int]) -> str:
    """How two vocabularies differ, for a person: how many tokens, and the first row that means two things."""
    if first == second or not comparable(first, second):
        return ""
    if whole := _whole(first):
        return f"their {whole} differ"
    unlike = first.items() ^ second.items()
    row = min(number for _, number in unlike)
    here, there = ({number: token for token, number in tokens.items()}.get(row) for tokens in (first, second))
    count = len({token for token, _ in unlike})
    return f"{count} tokens differ, the first in row {row}: {_shown(here)} and {_shown(there)}"


def _shown(token: str | None) -> str:
    return "nothing" if token is None else repr(token[:40])


def _whole(tokens: dict[str, int]) -> str:
    """The name of the file that stands for the tokens; empty when they are known."""
    return next(iter(tokens)).partition(":")[0].removeprefix("file ") if -1 in tokens.values() else ""


@functools.lru_cache(maxsize=16)
def _read(files: _Files) -> dict[str, int]:
    folder = files.folder
    if (folder / "tokenizer.json").exists():
        return _of_tokenizer(_json(folder / "tokenizer.json"))
    if (folder / "vocab.json").exists():
        added = folder / "added_tokens.json"
        return {**_json(folder / "vocab.json"), **(_json(added) if added.exists() else {})}
    for name in WHOLE:
        if (folder / name).exists():
            return {f"file {name}:{_checksum(folder / name)}": -1}
    return {}


def _of_tokenizer(told: Any) -> dict[str, int]:
    """Vocabulary of a tokenizer.json (https://huggingface.co/docs/tokenizers); its models keep tokens in two ways."""
    try:
        tokens = told["model"]["vocab"]
        if isinstance(tokens, list):  # Unigram: pairs of token and score, in order
            tokens = {token: row for row, (token, _) in enumerate(tokens)}
        return {**tokens, **{token["content"]: token["id"] for token in told.get("added_tokens") or ()}}
    except (KeyError, TypeError) as error:
        raise ValueError(f"tokenizer.json has no vocabulary ({error!r})") from None


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
