"""A dataset that has passed its check: a file of rows in canonical columns. Reading and mapping is in `rows.py`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from lamdagent.objects.reference import DATASET, ObjectRef

MADE = re.compile(r"data-[0-9a-f]{8}")
"""Names of datasets that actions made, as neutral as those of models; the user's own may not look like them."""


@dataclass(frozen=True)
class Dataset:
    """Rows ready to train on."""

    name: str
    """The key under `datasets` in the configuration; see `MADE` for one that an action made."""
    kind: str
    """Kind, which says what it can be used for: a name in `kinds.KINDS`, or `module:NAME` of a user's own kind."""
    description: str
    """One line that the agent reads."""
    fingerprint: str
    """Hex digest of the rows' content: two datasets with equal rows are one."""
    rows: int
    """Number of rows, at least 1."""
    path: str
    """A JSONL file with the canonical columns of `kind` and maybe more: local, or `runs:/...` if a run made it."""
    license: str = ""
    """As declared by the user; carried to the model card."""
    dropped: str = ""
    """Which rows were left out as bad, and why, for a person; empty when none was."""
    columns: tuple[str, ...] | None = field(default=None, compare=False)
    """The columns that every row has; None where the rows have not been read."""
    run_id: str = ""
    """The MLflow run that made it; empty for one that the user declared."""
    overlap: str = field(default="", compare=False)
    """One line about evaluation items in what an action made, where the user lets them pass; else empty."""

    @cached_property
    def ref(self) -> ObjectRef:
        """The reference to it."""
        return ObjectRef(DATASET, self.name, self.run_id, self.fingerprint)

    def fits(self, kind: str, columns: Iterable[str] = ()) -> bool:
        """Whether it is of that kind and has, for all that is known, those columns too."""
        return self.kind == kind and (self.columns is None or set(columns) <= set(self.columns))


def is_made(name: str) -> bool:
    """Whether an object of that name is a dataset that an action made."""
    return bool(MADE.fullmatch(name))
