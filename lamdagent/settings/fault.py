"""A fault of one key of the configuration."""

from dataclasses import dataclass
from typing import Any

Path = tuple[Any, ...]
"""Keys from the root to a value."""


@dataclass(frozen=True)
class Fault:
    """One fault, at one key."""

    path: Path
    """Keys that lead to it."""
    said: str
    """A sentence for the user, which begins with the path."""


def dotted(path: Path) -> str:
    """The path as Hydra writes it."""
    return ".".join(map(shown, path)) or "the configuration"


def shown(key: Any) -> str:
    """A key, or a short value, as YAML writes it."""
    words = {None: "null", True: "true", False: "false"}
    return words[key] if key is None or isinstance(key, bool) else str(key)


def given(value: Any) -> str:
    """A value as a message shows it: text in quotes, everything else as YAML writes it."""
    return shown(value) if value is None or isinstance(value, bool) else repr(value)
