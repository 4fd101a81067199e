"""`python -m lamdagent [command] +experiment=<name> key=value ...`: compose, do, and end with a meaning.

Exit codes: 0 done, 1 a rebuild gave another model or a replay could not be ended, 2 the user's input is wrong (one
message, no traceback), 70 a fault of ours (traceback), 75 failures in a row or a full disk stopped the search (what to
mend is said; the same command goes on), 130 interrupted.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from lamdagent.commands import COMMANDS, DEFAULT, Command, Request, find
from lamdagent.config import conf_folder
from lamdagent.errors import NotRebuilt, NotReplayed, SearchStopped, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXIT_CODES: dict[type[BaseException], int] = {
    UserError: 2,
    SearchStopped: 75,
    NotRebuilt: 1,
    NotReplayed: 1,
    KeyboardInterrupt: 130,
}
"""Exception -> exit code; any other one is a fault of ours, 70."""
HELP = {"--help", "-h"}
INTERRUPTED = "interrupted; the same command goes on from the store"


def main() -> None:
    """Entry point."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing tracebacks
    name, words = _command(sys.argv[1:])
    command = find(name)
    if command.help and HELP & {*words}:
        print(command.help)
        return
    run_id, flags, sys.argv[1:] = _split(command, words)
    _meaningful(lambda: _compose(command, run_id, flags))


def _command(words: Sequence[str]) -> tuple[str, list[str]]:
    """Its name and the words after it; without a name, a search is started."""
    return (words[0], list(words[1:])) if words and words[0] in COMMANDS else (DEFAULT, list(words))


def _split(command: Command, words: Sequence[str]) -> tuple[str | None, frozenset[str], list[str]]:
    """Run id, the command's own flags, and what is left for Hydra, in full."""
    run_id = _run_id(words) if command.takes_run_id else None
    rest = [word for word in words if word not in (*command.flags, run_id)]
    for short, key in command.shorthands.items():
        rest = [re.sub(rf"^{short}(?==)", key, word) for word in rest]
    return run_id, frozenset(words) & frozenset(command.flags), rest


def _run_id(words: Sequence[str]) -> str | None:
    """The first word, if it is one without signs, else the first that looks like an id of MLflow."""
    if words and re.fullmatch(r"\w+", words[0]):
        return words[0]
    return next((word for word in words if re.fullmatch("[0-9a-f]{32}", word)), None)


def _compose(command: Command, run_id: str | None, flags: frozenset[str]) -> None:
    """Let Hydra compose what the command line says, and do it.

    Raises:
        UserError: Hydra cannot compose or read it.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from lamdagent.api.composing import Composed, faults_told

    def carried_out(node: "DictConfig", words: tuple[str, ...]) -> None:
        from rich.console import Console

        from lamdagent.loop.terminal import Terminal

        with Terminal(Console(stderr=True)).saying_warnings():  # a search says them beside its progress instead
            command.run(Request(Composed(node, words), run_id, flags))

    @hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    def composed(node: "DictConfig") -> None:
        overrides: Any = OmegaConf.to_container(cast(Any, HydraConfig.get().overrides), resolve=False)
        _meaningful(lambda: carried_out(node, tuple(overrides["task"])))

    with faults_told(sys.argv[1:], tuple(COMMANDS)):
        composed()


def _meaningful(do: Callable[[], None]) -> None:
    """Do it; what it raises becomes a message and the exit code."""
    try:
        do()
    except tuple(EXIT_CODES) as error:
        print(f"lamdagent: {INTERRUPTED if isinstance(error, KeyboardInterrupt) else error}", file=sys.stderr)
        raise SystemExit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(70) from None


if __name__ == "__main__":
    main()
