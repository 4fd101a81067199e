"""Whether the kernel has ended a process because memory ran out: SIGKILL alone does not say so."""

from dataclasses import dataclass
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class OomWatch:
    """The kernel's count of such kills, as it was when a process was still alive."""

    counter: Path | None
    """The file with the count; None where the kernel shows none."""
    before: int

    @classmethod
    def of(cls, pid: int, proc: Path = PROC, cgroups: Path = CGROUPS) -> "OomWatch":
        """Watch a living process: by its own cgroup (v2, then v1), else by the whole machine."""
        counter = next((file for file in _counters(pid, proc, cgroups) if _count(file) is not None), None)
        return cls(counter, _count(counter) or 0)

    def struck(self) -> bool:
        """Whether the kernel has killed since; False where nothing can be told."""
        return (_count(self.counter) or 0) > self.before


def _counters(pid: int, proc: Path, cgroups: Path) -> list[Path]:
    try:
        lines = (proc / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = []
    for _, controllers, place in (line.split(":", 2) for line in lines):
        if not controllers:
            found.append(cgroups / place.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            # A container sees its own cgroup as the root of the tree, under whatever name the host has for it.
            v1 = cgroups / "memory"
            found += [v1 / place.lstrip("/") / "memory.oom_control", v1 / "memory.oom_control"]
    return [*found, cgroups / "memory.events", proc / "vmstat"]


def _count(file: Path | None) -> int | None:
    """The file's line `oom_kill <n>`; None when there is no such line or file."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file else []
    except OSError:
        return None
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else None
