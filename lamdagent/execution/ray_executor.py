"""Jobs on a Ray cluster (https://docs.ray.io): many at once, on as many machines as it has.

One actor per slot, so that libraries are imported once; actors die with the driver. A job streams its events back, and
one that loses its worker or its machine is started again elsewhere. Files go through a file system that all share.
"""

import contextlib
import logging
import os
import queue
import shutil
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdagent.config import ExecutionConfig
from lamdagent.errors import UserError
from lamdagent.execution.call import call
from lamdagent.execution.executor import WARM_UP, Event, Failed, Finished, Job, Update
from lamdagent.execution.local import import_quietly
from lamdagent.execution.progress import Progress
from lamdagent.files import cache_folder
from lamdagent.libraries import uncollected

RETRIES = 2
"""How often a job is started again after its worker was lost."""
STARTS = 3
"""Workers in a row that may die before they are ready; then their slot is given up."""
STORE_BYTES = 100 * 2**20
"""Ray's object store where we start Ray: what goes through it is small."""
PASSED_ON = ("LAMDAGENT_", "MLFLOW_", "HF_", "TOKENIZERS_", "TRANSFORMERS_", "DATASETS_")
"""Environment variables of the driver that workers on other machines get, too: those that begin so."""


class Worker:
    """A worker that runs in a Ray actor."""

    def __init__(self, environment: Mapping[str, str], path: Sequence[str], warm_up: Sequence[str]) -> None:
        """See the world as the driver does, then import `warm_up`."""
        os.environ.update(environment)
        sys.path.extend(entry for entry in path if entry not in sys.path)
        self._thread = ThreadPoolExecutor(1)  # one for all jobs: libraries keep things per thread
        with uncollected(for_good=True):
            for module in warm_up:
                import_quietly(module)

    def ready(self, probe: str) -> str:
        """Why this worker is of no use, or an empty string; `probe` is a file that the driver has just written."""
        return "" if Path(probe).exists() else _unseen(Path(probe).parent)

    def run(self, job: Job, again: bool) -> Iterator[Event]:
        """The events of a job, its end last; with `again` what an earlier try left in its output folder goes first."""
        output = job.arguments.get("output")
        if output and not Path(output).is_dir():
            yield Failed(job.id, _unseen(output), "bad_data")
            return
        if output and again:
            shutil.rmtree(output)
            Path(output).mkdir()
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()

        def report(progress: Progress) -> None:
            events.put(Update(job.id, progress))

        self._thread.submit(lambda: events.put(call(job, report)))
        while not isinstance(event := events.get(), Finished | Failed):
            yield event
        yield event


@dataclass(eq=False)
class _Slot:
    """A place for one worker."""

    actor: Any
    coming: Any
    """Ray's next answer: that the worker is ready, or the job's events; None while it is idle."""
    job: Job | None = None
    started: float = 0.0
    missing: bool = False
    """Its worker was lost, and the new one is not ready yet."""
    deaths: int = 0
    """Workers in a row that died before they were ready."""


class RayExecutor:
    """As many jobs at once as the cluster fits; a cluster of this machine alone is started when none is named."""

    def __init__(self, settings: ExecutionConfig, warm_up: Sequence[str] = WARM_UP) -> None:
        """Connect and start the workers; they import `warm_up` while nobody waits.

        Raises:
            UserError: Ray is not installed, the cluster does not answer, or no machine of it fits an action.
        """
        self._ray = _connect(settings.address)
        self._warm_up = tuple(warm_up)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = settings.gpus if settings.gpus is not None else float(any(node.get("GPU") for node in nodes))
        self._needs = {"num_cpus": settings.cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
        fits = sum(_fits(node, settings.cpus, gpus) for node in nodes)
        if not fits:
            self.close()
            have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            wanted = f"{settings.cpus:g} CPUs and {gpus:g} GPUs"
            raise UserError(f"execution: an action takes {wanted}, but no machine has them; the machines have: {have}")
        self._probe = cache_folder() / f".seen-by-all-{os.getpid()}"
        self._probe.touch()
        self._waiting: deque[Job] = deque()
        self._lost: Counter[str] = Counter()
        self._slots = [self._started(_Slot(None, None)) for _ in range(min(fits, settings.at_once or fits))]

    @property
    def capacity(self) -> int:
        """The slots whose worker has not been lost, at least one."""
        return max(1, len([slot for slot in self._slots if not slot.missing]))

    def submit(self, job: Job) -> None:
        """Hand `job` to an idle worker, or to the first that becomes idle."""
        self._waiting.append(job)
        self._hand_out()

    def next_event(self, timeout_s: float) -> Event | None:
        """The next event of any job.

        Raises:
            UserError: a machine does not see the driver's files, or no worker can be started any more.
        """
        until = time.monotonic() + timeout_s
        while True:
            self._hand_out()
            coming = [slot.coming for slot in self._slots if slot.coming is not None]
            left = min([until, *(_deadline(slot) for slot in self._slots)]) - time.monotonic()
            if not coming:
                return None
            found, _ = self._ray.wait(coming, num_returns=1, timeout=max(0.0, left))
            event = self._answered(next(s for s in self._slots if s.coming is found[0])) if found else self._overdue()
            if event is not None or time.monotonic() >= until:
                return event

    def close(self) -> None:
        """End all workers, and Ray where we have started it."""
        with contextlib.suppress(AttributeError):
            self._probe.unlink(missing_ok=True)
        self._ray.shutdown()

    def _started(self, slot: _Slot) -> _Slot:
        """The slot with a new worker."""
        passed = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
        slot.actor = self._ray.remote(Worker).options(**self._needs).remote(passed, sys.path, self._warm_up)
        slot.coming, slot.job = slot.actor.ready.remote(str(self._probe)), None
        return slot

    def _hand_out(self) -> None:
        for slot in self._slots:
            if slot.coming is None and self._waiting:
                slot.job = self._waiting.popleft()
                slot.started = time.monotonic()
                run = slot.actor.run.options(num_returns="streaming")
                slot.coming = run.remote(slot.job, self._lost[slot.job.id] > 0)

    def _answered(self, slot: _Slot) -> Event | None:
        """The event of the slot's job that has come, or None when its worker is ready."""
        from ray.exceptions import RayError, RayTaskError

        try:
            if slot.job is None:
                fault = self._ray.get(slot.coming)
                slot.coming, slot.missing, slot.deaths = None, False, 0
                if fault:
                    raise UserError(fault)
                return None
            event: Event = self._ray.get(next(slot.coming))
        except (RayError, StopIteration) as error:
            if slot.job is not None and isinstance(error, RayTaskError):  # it lives, but could not even make the call
                return self._end(slot, str(error).splitlines()[-1], "error")
            return self._gone(slot, _cause(error))
        if isinstance(event, Finished | Failed):
            slot.coming = slot.job = None
            del self._lost[event.job_id]
        return event

    def _gone(self, slot: _Slot, how: str) -> Event | None:
        """The slot's worker is lost: a new one, and its job goes to whoever is idle first."""
        job = slot.job
        if job is None:
            slot.deaths += 1
            if slot.deaths >= STARTS:
                self._slots.remove(slot)
                if not self._slots:
                    raise UserError(f"execution=ray: no worker can be started ({how}); Ray's logs say why")
                return None
        else:
            self._lost[job.id] += 1
            if self._lost[job.id] > RETRIES:
                return self._end(slot, f"lost its worker {self._lost[job.id]} times ({how})", "lost_worker")
            self._waiting.appendleft(job)
        slot.missing = True
        self._started(slot)
        return Update(job.id, Progress("lost its worker, starts again", 0, 0)) if job else None

    def _overdue(self) -> Event | None:
        for slot in self._slots:
            if slot.job is not None and time.monotonic() >= _deadline(slot):
                limit = slot.job.timeout_s / 60
                return self._end(slot, f"took longer than its limit of {limit:.3g} minutes and was ended", "timeout")
        return None

    def _end(self, slot: _Slot, reason: str, kind: str) -> Event:
        """Fail the slot's job; whatever its worker does ends with it."""
        assert slot.job is not None
        failed = Failed(slot.job.id, reason, kind, seconds=time.monotonic() - slot.started)
        del self._lost[failed.job_id]
        self._ray.kill(slot.actor)
        self._started(slot)
        return failed


def _connect(address: str | None) -> Any:
    """The module `ray`, connected; nothing is sent to Ray's makers, and SIGTERM stays ours."""
    try:
        import ray
    except ImportError:
        raise UserError("execution=ray: Ray is not installed; pip install 'lamdagent[ray]'") from None
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ours = signal.getsignal(signal.SIGTERM)
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"execution.address: no Ray cluster answers at {address or 'this machine'} ({first})") from None
    signal.signal(signal.SIGTERM, ours)
    return ray


def _cause(error: Exception) -> str:
    """Ray's reason for a lost worker, cut to what a person reads; Ray puts the traceback of a failed start last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200]}" if lines else type(error).__name__


def _unseen(folder: Path | str) -> str:
    return (
        f"execution=ray: the machine {os.uname().nodename} does not see {folder}. All machines have to share the file "
        "system of the cache (LAMDAGENT_CACHE) and of the store's artifacts or, with a tracking server, of the driver's"
        " temporary files (TMPDIR): set them to folders that all see at the same path"
    )


def _fits(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many actions a machine takes at once."""
    needs = (("CPU", cpus), ("GPU", gpus))
    return int(min((node.get(name, 0.0) // amount for name, amount in needs if amount), default=0))


def _deadline(slot: _Slot) -> float:
    return slot.started + slot.job.timeout_s if slot.job else float("inf")
