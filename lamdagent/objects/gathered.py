"""Rows that an action has made: what is kept of them, and the files they are kept in."""

from dataclasses import dataclass
from typing import Any

from lamdagent.objects.rows import as_text, columns_of, fingerprint_of_rows

ROWS, ABOUT = "rows.jsonl", "about.json"
"""Files of a dataset that an action made."""


@dataclass(frozen=True)
class Gathered:
    """Rows that an action has made."""

    kind: str
    rows: list[dict[str, Any]]
    """At least one, with the canonical columns of the kind."""
    description: str
    """One line that the agent reads."""

    def about(self) -> dict[str, Any]:
        """Description of the rows without the rows, as JSON; read by memory/history.py."""
        fingerprint = fingerprint_of_rows(as_text(self.rows))
        told = {"kind": self.kind, "fingerprint": fingerprint, "rows": len(self.rows)}
        return {**told, "columns": columns_of(self.rows), "description": self.description}


def unchecked(made: Gathered) -> str:
    """The check of a caller who has nothing to compare rows with."""
    return ""
