"""Commands of `python -m lamdagent`: one file for each command, one line for each below.

A file has `COMMAND = Command(...)` and imports nothing heavy before its `run` is called.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamdagent.api.composing import Composed

COMMANDS = {
    "search": "lamdagent.commands.search",
    "history": "lamdagent.commands.history",
    "prune": "lamdagent.commands.prune",
    "rebuild": "lamdagent.commands.rebuild",
    "replay": "lamdagent.commands.replay",
    "transfer": "lamdagent.commands.transfer",
}
"""First word of the command line -> module."""
DEFAULT = "search"
"""The command where the command line names none."""


@dataclass(frozen=True)
class Request:
    """A command line, read."""

    composed: "Composed"
    """Configuration that Hydra composed from the overrides."""
    run_id: str | None = None
    """The run that it names, for commands that take one."""
    flags: frozenset[str] = frozenset()
    """Flags of the command's own that were given."""


@dataclass(frozen=True)
class Command:
    """One thing that the command line can do."""

    name: str
    help: str
    """For --help; empty: Hydra's own help, with every key."""
    run: Callable[[Request], None]
    """Does it and prints what came out; raises what `__main__.EXIT_CODES` lists."""
    takes_run_id: bool = False
    """Whether the word after the name may be an MLflow run id."""
    flags: tuple[str, ...] = ()
    """Flags of its own, such as --json."""
    shorthands: Mapping[str, str] = field(default_factory=dict)
    """Key as it may be written -> key of the configuration."""


def find(name: str) -> Command:
    """The command of that name in COMMANDS."""
    command = resolve_name(f"{COMMANDS[name]}:COMMAND")
    assert isinstance(command, Command)
    return command
