"""Does it fit on the disk? Asked before an action starts, since a disk that fills up in the middle costs the action."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MARGIN = 16 << 20
"""Bytes for what an action leaves besides weights: samples, curves, the database."""


@dataclass(frozen=True)
class Need:
    """Bytes that will be written below a folder, which need not exist yet."""

    folder: Path
    bytes: int
    what: str
    """For a person, such as `the new weights`."""


def shortage(needs: Iterable[Need]) -> str:
    """Why it does not fit, by file system, each with a margin; empty when it does, as far as can be told."""
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(os.stat(_there(need.folder)).st_dev, []).append(need)
    problems = []
    for some in disks.values():
        wanted = sum(need.bytes for need in some)
        free = shutil.disk_usage(_there(some[0].folder)).free
        if wanted and wanted + MARGIN > free:
            parts = ", ".join(f"{in_words(need.bytes)} for {need.what}" for need in some if need.bytes)
            problems.append(
                f"{in_words(wanted + MARGIN)} are needed in {_there(some[0].folder)} ({parts}, "
                f"{in_words(MARGIN)} for the rest), and {in_words(free)} are free"
            )
    return "; ".join(problems)


def in_words(size: int) -> str:
    """`1.5 GB`, `271 MB`; in steps of 1,000, as disks are sold."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, "TB"
    return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"


def _there(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
