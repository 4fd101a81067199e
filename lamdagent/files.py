"""The user's cache folder, and files that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from lamdagent.errors import UserError


def cache_folder() -> Path:
    """The user's cache folder, or what the environment variable LAMDAGENT_CACHE names; made when missing.

    Raises:
        UserError: it cannot be made.
    """
    from platformdirs import user_cache_path

    folder = Path(os.environ.get("LAMDAGENT_CACHE") or user_cache_path("lamdagent")).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The cache folder {folder} cannot be made ({error.strerror}). Set LAMDAGENT_CACHE to a folder of yours."
        ) from error
    return folder


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path`, where other processes see the old content or the new one; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".partial", delete=False, encoding="utf-8") as file:
        partial = Path(file.name)
        try:
            file.write(text)
            file.close()
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)  # of a full disk


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, after `build(a new empty folder beside it)` and a rename when it is not there yet.

    A folder that exists is complete, whatever was killed before. Two processes at once: one builds, one waits.
    """
    from filelock import FileLock

    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = Path(f"{folder}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed: the lock is ours
            partial.mkdir()
            build(partial)
            partial.rename(folder)
    return folder
