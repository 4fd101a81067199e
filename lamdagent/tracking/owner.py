"""The process that writes a run, and whether it is provably dead."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process, told apart from every other one, also after a reboot and when its pid is used again."""

    host: str
    """Host name and machine id: host names alone are not unique."""
    boot: str
    """The kernel's boot id."""
    namespace: str
    """The pid namespace: a pid of another container says nothing here."""
    pid: int
    ticks: int
    """Clock ticks from boot to the start of the process; 0 when unknown."""

    def dump(self) -> str:
        """As stored in the tag."""
        return json.dumps(asdict(self), separators=(",", ":"))


def this_process() -> Owner:
    """The running process. Linux; elsewhere the unknown parts are empty and nothing is ever provable."""
    machine = _read("/etc/machine-id")[:12]
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    pid = os.getpid()
    boot = _read("/proc/sys/kernel/random/boot_id")
    return Owner(f"{socket.gethostname()}/{machine}", boot, namespace, pid, start_ticks(pid))


def start_ticks(pid: int) -> int:
    """Start time of a living process in clock ticks since boot; 0 when there is none (a zombie counts as none)."""
    # The command name may hold spaces and brackets: count the fields after the last bracket.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if fields and fields[0] != "Z" else 0


def provably_dead(text: str) -> bool:
    """True only when the owner ran on this very host and is gone: rebooted since, or no such process any more.

    False for other hosts, other containers, living processes, and text that is not an owner.
    """
    try:
        owner = Owner(**json.loads(text))
    except (TypeError, ValueError):
        return False
    here = this_process()
    if owner.host != here.host or not owner.boot or not here.boot:
        return False
    if owner.boot != here.boot:
        return True
    return owner.namespace == here.namespace and owner.ticks > 0 and start_ticks(owner.pid) != owner.ticks


def of_this_host(text: str) -> bool:
    """True when the owner runs or ran where `provably_dead` can tell: same host, boot and pid namespace."""
    try:
        owner = Owner(**json.loads(text))
    except (TypeError, ValueError):
        return False
    here = this_process()
    return (owner.host, owner.boot, owner.namespace) == (here.host, here.boot, here.namespace) and owner.ticks > 0


class HeartbeatMonitor:
    """How long others have been silent, by a clock of our own that is set once and never jumps."""

    def __init__(self) -> None:
        """No heartbeat has been seen yet."""
        self._set = time.time() - time.monotonic()
        self._seen: dict[str, tuple[int, float | None]] = {}

    def silent_s(self, sender: str, sent_ms: int) -> float:
        """Seconds since the last heartbeat, which carries the sender's own timestamp, `sent_ms` since the epoch.

        The sender's timestamp counts until we have seen one heartbeat arrive ourselves.
        """
        now = time.monotonic()
        last, changed = self._seen.get(sender, (sent_ms, None))
        changed = now if last != sent_ms else changed
        self._seen[sender] = (sent_ms, changed)
        return now - changed if changed is not None else self._set + now - sent_ms / 1000


def _read(path: str) -> str:
    """Content of a small system file, or nothing."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
