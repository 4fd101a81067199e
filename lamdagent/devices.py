"""Which devices actions run on, and how much memory these have; asked without torch."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lamdagent.config import ExecutionConfig

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""A control group's limit, v2 and v1."""


@dataclass(frozen=True)
class Capacity:
    """The memory of one device."""

    bytes: int
    what: str
    """For a person, such as `this machine`."""
    gpu: bool
    """Whether actions run on a GPU there: they then train in mixed precision and keep few activations."""


def capacity(execution: ExecutionConfig) -> Capacity | None:
    """As the user says, else of the smallest visible GPU, else of this machine; None for a cluster elsewhere."""
    if execution.kind == "ray" and execution.address and execution.memory_gb is None:
        return None
    found = gpu_memory()
    if execution.memory_gb is not None:
        return Capacity(int(execution.memory_gb * 1e9), "execution.memory_gb", bool(found))
    if found:
        return Capacity(min(found), "the smallest GPU", True)
    memory = host_memory()
    return Capacity(memory, "this machine", False) if memory else None


def gpu_memory() -> list[int]:
    """Bytes of every GPU that CUDA_VISIBLE_DEVICES leaves visible, by nvidia-smi; empty where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return []
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    command += [f"--id={visible}"] if visible else []
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) << 20 for line in asked.stdout.split() if line.isdigit()]


def gpus() -> int:
    """How many GPUs are visible here."""
    return len(gpu_memory())


def host_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Bytes of this machine, or of what its container may use; 0 when it cannot be told."""
    sizes = []
    try:
        lines = (proc / "meminfo").read_text(encoding="utf-8").splitlines()
        sizes += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal:")]
    except OSError:
        pass
    for limit in LIMITS:
        try:
            sizes.append(int((cgroups / limit).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return min(sizes, default=0)
