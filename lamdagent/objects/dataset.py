"""A dataset that has passed its check: a file of rows in canonical columns. Reading and mapping is in `sources.py`."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["sft", "preference", "prompts"]

COLUMNS: dict[str, tuple[str, ...]] = {
    "sft": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
    "prompts": ("prompt",),
}
"""Canonical columns of each kind: strings, or lists of {role, content} messages (TRL's conversational form)."""


@dataclass(frozen=True)
class Dataset:
    """Rows ready to train on."""

    name: str
    """The key under `datasets` in the configuration."""
    kind: Kind
    """What it can be used for."""
    description: str
    """One line that the agent reads."""
    fingerprint: str
    """Hex digest of the rows' content: two datasets with equal rows are one."""
    rows: int
    """Number of rows, at least 1."""
    path: str
    """A local JSONL file with the canonical columns of `kind`; further columns are kept."""
    license: str = ""
    """As declared by the user; carried to the model card."""
    dropped: str = ""
    """Which rows were left out as bad, and why, for a person; empty when none was."""
