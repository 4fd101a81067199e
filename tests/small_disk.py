"""Searches on a small disk: with room, without, with room again, and one that fills it up in the middle of a save.

`python -m tests.small_disk <its folder> <folder for a copy of the store> <overrides>...`; a program, because the disk
is mounted for one process and its children.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests import forkserver

LEFT_FREE = 12_000_000
"""Bytes; a trial needs 17 MB."""


def main(disk: Path, copies: Path, overrides: list[str]) -> None:
    """Print what the searches print, headings, and what is left on the disk."""

    def lamdagent(*words: str) -> None:
        command = [sys.executable, "-m", "lamdagent", *words]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = forkserver.run(command, cwd=disk, **output)
        print(f"{done.stdout}code {done.returncode}")

    lamdagent(*overrides, "budget.trials=3")
    print("FULL")
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * (shutil.disk_usage(disk).free - LEFT_FREE))
    lamdagent(*overrides, "budget.trials=1")
    print("MADE SPACE")
    lamdagent("prune", *overrides)
    ballast.unlink()
    lamdagent(*overrides, "budget.trials=1")
    print("FILLS UP")
    lamdagent(*overrides, "budget.trials=1", "+action=hoards", "~actions.nudge")
    print("LEFT")
    print(*(path for pattern in ("junk*", "staging*") for path in disk.rglob(pattern)))
    used = shutil.disk_usage(disk)
    print(f"{100 * used.used / used.total:.0f}%")
    for file in disk.glob("mlflow.db*"):
        shutil.copyfile(file, copies / file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
