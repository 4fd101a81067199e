"""Kinds of dataset: the columns of each, what makes a row useless, what of it is text, how TRL gets it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamdagent.errors import UserError
from lamdagent.functions import load_function

Row = dict[str, Any]

FOR_TEMPLATES = ("tools", "chat_template_kwargs")
"""Columns that TRL's chat templates read where a row has them."""


def _no_fault(row: Mapping[str, Any]) -> str:
    return ""


@dataclass(frozen=True)
class DatasetKind:
    """A kind of training data. One of your own is such a value in a module: `kind: my_module:MY_KIND`."""

    texts: tuple[str, ...]
    """Columns that every row has: strings, or lists of {role, content} messages (TRL's conversational form). The
    first is what a model is given. None may be empty; the overlap check and the memory guard read them."""
    labels: tuple[str, ...] = ()
    """Columns that every row has and that are no texts; only `fault` looks at them."""
    optional: tuple[str, ...] = FOR_TEMPLATES
    """Further columns that the trainer gets where a row has them."""
    fault: Callable[[Mapping[str, Any]], str] = _no_fault
    """Why a row without an empty text teaches nothing; an empty string when it does."""
    to_trl: Callable[[list[Row], int], list[Row]] | None = None
    """From the rows and the seed to the rows of TRL's trainer; None = they are the same. A function that needs nothing
    but its own source text and `random`: it also stands in the scripts of a rebuild."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every row has, in canonical order."""
        return (*self.texts, *self.labels)

    def empty_text(self, row: Mapping[str, Any]) -> str | None:
        """The first text column that says nothing; None where all say something."""
        return next((column for column in self.texts if not _filled(row[column])), None)

    def texts_of(self, row: Mapping[str, Any]) -> list[str]:
        """Texts that a model sees of the row, one for each cell or message."""
        return [text for column in self.texts for text in _texts(row[column])]

    def letters(self, row: Mapping[str, Any]) -> int:
        """About how many letters the row's longest sequence has: the first text and the longest of the others."""
        first, *others = [_length(row[column]) for column in self.texts]
        return first + max(others, default=0)


def _chosen_is_rejected(row: Mapping[str, Any]) -> str:
    return "chosen equals rejected" if row["chosen"] == row["rejected"] else ""


KINDS: Mapping[str, DatasetKind] = {
    "sft": DatasetKind(("prompt", "completion")),
    "preference": DatasetKind(("prompt", "chosen", "rejected"), fault=_chosen_is_rejected),
    "prompts": DatasetKind(("prompt",)),
}
"""By what stands at `datasets.<name>.kind` and at the `kind` of a slot."""


def dataset_kind(name: str, where: str = "kind", others: Sequence[str] = ()) -> DatasetKind:
    """The kind of that name, or the `DatasetKind` at `module:NAME`.

    Args:
        name: as the user wrote it.
        where: the key of the configuration that holds it, for the message.
        others: what is allowed there besides kinds of data, for the message.

    Raises:
        UserError: there is none.
    """
    if name in KINDS:
        return KINDS[name]
    allowed = f"allowed: {', '.join((*others, *KINDS))}, or module:NAME of a DatasetKind of your own"
    found = load_function(name, where) if ":" in name else None
    if isinstance(found, DatasetKind):
        return found
    what = f", which is a {type(found).__name__}" if found is not None else ""
    raise UserError(f"{where}: got {name!r}{what}; {allowed}")


def is_kind(name: object) -> bool:
    """Whether `name` can be a kind of data; nothing is imported, since a name from a store may name any module."""
    return isinstance(name, str) and (name in KINDS or bool(re.fullmatch(r"[\w.]+:\w+", name)))


def _filled(cell: Any) -> bool:
    if isinstance(cell, str):
        return bool(cell.strip())
    return isinstance(cell, list) and bool(cell) and all(isinstance(m, dict) and m.get("content") for m in cell)


def _texts(cell: Any) -> list[str]:
    if isinstance(cell, str):
        return [cell]
    return [message["content"] for message in cell if isinstance(message.get("content"), str)]


def _length(cell: Any) -> int:
    return len(cell) if isinstance(cell, str) else sum(len(str(message.get("content"))) for message in cell)
