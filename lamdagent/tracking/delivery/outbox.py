"""Writes that the store could not take, kept on disk in order until it can; they survive the process.

Each process has one folder per store; its lock says that the process lives. Others recover what a dead one left.
"""

import hashlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from lamdagent.errors import UserError
from lamdagent.text import without_login
from lamdagent.tracking.patch import RunPatch, load

ENTRY = "change.json"
"""Written last: an entry without it was never complete."""
FAILURES = "failures.txt"
"""Beside it: a line for every time that the store did not take it though it takes other writes."""
MOST_FAILURES, LONGEST_S = 10, 30 * 60.0
"""An entry that failed at least this many times, over at least this time, is set aside; all processes' tries count."""
log = logging.getLogger(__name__)


def outbox_root() -> Path:
    """Folder of all outboxes: in the user's state folder, or in the one that LAMDAGENT_CACHE names."""
    from platformdirs import user_state_path

    return Path(os.environ.get("LAMDAGENT_CACHE") or user_state_path("lamdagent")).expanduser().absolute() / "outbox"


class Outbox:
    """Patches of this process to one experiment. Nothing is on disk while nothing waits."""

    def __init__(self, uri: str, experiment: str, folder: Path | None = None) -> None:
        """`uri` may hold credentials: they are no part of the name. `folder`: of a dead process, whose lock is held."""
        key = hashlib.sha256(f"{without_login(uri)} {experiment}".encode()).hexdigest()[:12]
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment)[:40]
        self._key = (uri, experiment)
        self.store = outbox_root() / f"{slug}-{key}"
        """Folder of all processes that write this experiment."""
        self.folder = folder or self.store / f"{time.time_ns()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = FileLock(f"{self.folder}.lock", thread_local=False)
        self._entries: list[tuple[Path, RunPatch]] = []
        self._number = 0

    @property
    def patches(self) -> list[RunPatch]:
        """Patches that wait, in order."""
        return [patch for _, patch in self._entries]

    def add(self, patch: RunPatch) -> None:
        """Keep `patch` durably, its files included: weights are MOVED here, folders copied.

        Raises:
            UserError: this disk cannot take it either.
        """
        self._number += 1
        entry = self.folder / f"{self._number:08d}"
        try:
            self.store.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._lock.is_locked:
                self._lock.acquire()
            entry.mkdir(parents=True)
            kept = _with_files(patch, entry)
            _write(entry / ENTRY, kept.dump())
            _sync(self.folder)
        except OSError as error:
            raise UserError(
                f"The store does not answer, and what it should have got cannot be kept in {entry} ({error.strerror}). "
                "Make room there, or set LAMDAGENT_CACHE to a folder on another disk, and start the same command again."
            ) from error
        self._entries.append((entry, kept))

    def deliver(self, send: Callable[[RunPatch], None]) -> None:
        """Give `send` what waits, in order; what it has taken waits no more. Its files stay until `close`."""
        while self._entries:
            entry, patch = self._entries[0]
            send(patch)
            (entry / ENTRY).unlink()
            _sync(entry)
            self._entries.pop(0)

    def refuse(self, patch: RunPatch, reason: str) -> Path:
        """Set `patch` aside for good, with the reason; the folder where it is."""
        folder = self.store / "refused" / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True, mode=0o700)
        kept = _with_files(patch, folder)
        (folder / "reason.txt").write_text(reason, encoding="utf-8")
        _write(folder / ENTRY, kept.dump())
        return folder

    def is_hopeless(self, reason: str) -> bool:
        """Note that the first entry has failed; whether that has gone on so often and so long that it will not mend."""
        path = self._entries[0][0] / FAILURES
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{time.time():.0f} {reason}\n")
        failures = path.read_text(encoding="utf-8").splitlines()
        lasted_s = time.time() - float(failures[0].split()[0])
        return len(failures) >= MOST_FAILURES and lasted_s >= LONGEST_S

    def of_dead_processes(self) -> "list[Outbox]":
        """The outboxes of processes that are gone, oldest first; they are ours from now on, until closed."""
        found = []
        for lock in sorted(self.store.glob("*.lock")):
            box = Outbox(*self._key, lock.with_suffix(""))
            try:
                if box.folder != self.folder and box._read():
                    found.append(box)
            except (TypeError, ValueError, KeyError):
                box._lock.release()
                log.warning("%s was written by another version of this package; it stays there.", box.folder)
        return found

    def _read(self) -> bool:
        """Take the lock and read what is there; whether there is anything. False while its process lives."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        for path in sorted(self.folder.glob(f"*/{ENTRY}")):
            self._entries.append((path.parent, load(path.read_text(encoding="utf-8"))))
        if not self._entries:
            self.close()
        return bool(self._entries)

    def close(self) -> None:
        """Give back the disk space and the lock; nothing waits any more, and nobody uses its files."""
        if self._lock.is_locked:
            shutil.rmtree(self.folder, ignore_errors=True)
            Path(f"{self.folder}.lock").unlink(missing_ok=True)
            self._lock.release()


def _with_files(patch: RunPatch, folder: Path) -> RunPatch:
    """`patch` with its files in `folder`, on the disk and not only on their way to it."""
    folders = {}
    for number, (path, source) in enumerate(patch.folders.items()):
        folders[path] = str(folder / f"folder{number}")
        shutil.copytree(source, folders[path], dirs_exist_ok=True)
    weights = patch.weights
    if weights and Path(weights).is_dir():  # else it had arrived before the fault
        weights = shutil.move(weights, str(folder / "weights"))
    for file in folder.rglob("*"):
        _sync(file)
    return replace(patch, folders=folders, weights=str(weights))


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    _sync(partial)
    partial.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
