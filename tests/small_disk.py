"""Searches on a small disk: with room, without, with room again, and one that fills it up in the middle of a save.

`python -m tests.small_disk <its folder> <folder for a copy of the store> <rights> <overrides>...`; a program, because
the disk is mounted for one process and its children.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.searches import lamdagent as call

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
"""Linux, unshare(2)."""
RIGHTS = {"root": NEW_MOUNTS, "user": NEW_MOUNTS | NEW_USER}
LEFT_FREE = 12_000_000
"""Bytes; a trial needs 17 MB."""


def mount(disk: Path, rights: str) -> None:
    """An empty disk of 64 MB that only this process and its children see."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(RIGHTS[rights]):
        raise OSError(ctypes.get_errno(), "no small disk can be mounted with the rights of", rights)
    if rights == "user":
        for name, text in {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}.items():
            Path("/proc/self", name).write_text(text)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)


def main(disk: Path, copies: Path, rights: str, overrides: list[str]) -> None:
    """Print what the searches print, headings, and what is left on the disk."""
    if rights:
        mount(disk, rights)

    def lamdagent(*words: str) -> None:
        code, output = call(disk, *words)
        print(f"{output}code {code}", flush=True)

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
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
