"""The durable way to the store: each write arrives now or later, once and in order."""

import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lamdagent.errors import UserError
from lamdagent.tracking import schema
from lamdagent.tracking.delivery.apply import apply_patch, find_provisional
from lamdagent.tracking.delivery.connection import Connection, first_line
from lamdagent.tracking.delivery.outbox import Outbox
from lamdagent.tracking.outage import CircuitBreaker, is_outage
from lamdagent.tracking.patch import PROVISIONAL, RunPatch
from lamdagent.tracking.run_cache import RunCache

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backlog:
    """Writes that the store has not got yet; false when there are none."""

    writes: int
    folder: Path
    """Folder where this process keeps its own writes."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return self.writes > 0


class DeliveryQueue:
    """Takes patches to one experiment and delivers them, or keeps them in an outbox while the store is away.

    While anything waits, all later patches wait behind it. A run opened in an outage has a provisional id;
    `resolve_run_id` gives the store's as soon as there is one. What is delivered is applied to the cache of runs.
    """

    def __init__(self, connection: Connection, outbox: Outbox, cache: RunCache) -> None:
        """Nothing waits yet; see `recover`."""
        self._connection = connection
        self._own = outbox
        self._boxes = [outbox]
        self._cache = cache
        self._breaker = CircuitBreaker()
        """Of the outboxes: their first patch may fail though the store answers."""
        self._resolved: dict[str, str] = {}
        """Provisional id -> the store's."""
        self._proven = False
        """Whether the store has taken a write of ours."""

    @property
    def waiting(self) -> list[RunPatch]:
        """The patches that wait for the store, in order, with the store's ids as far as they are known."""
        return [patch.renamed(self.resolve_run_id) for box in self._boxes for patch in box.patches]

    @property
    def idle(self) -> bool:
        """Whether nothing waits and the store answers, as far as is known."""
        return self._connection.breaker.closed and not self._count()

    @property
    def backlog(self) -> Backlog:
        """How much waits, and where."""
        return Backlog(self._count(), self._own.folder)

    def waiting_weights(self, run_id: str) -> Path | None:
        """The folder of the run's weights, if they wait for the store."""
        found = (Path(patch.weights) for patch in self.waiting if patch.run_id == run_id and patch.weights)
        return next((folder for folder in found if folder.is_dir()), None)

    def resolve_run_id(self, run_id: str) -> str:
        """The run's id in the store, as far as it has one."""
        return self._resolved.get(run_id, run_id)

    def write(self, patch: RunPatch) -> None:
        """Deliver now, or keep for later. What the store refuses for good is set aside, unless it opens a run.

        Raises:
            UserError: the first run cannot be opened, so nothing has begun; or this disk is full too.
            MlflowException: the store refuses for good to open this run.
        """
        patch = patch.renamed(self.resolve_run_id)
        begins = patch.new is not None and not self._proven
        if not (self.idle or begins):
            self._own.add(patch)
            return
        try:
            self._send(patch, again=False)
        except Exception as error:
            if not is_outage(error):
                if patch.new is not None or isinstance(error, FileNotFoundError):
                    raise
                self._refuse(self._own, patch, error)
            elif begins:
                raise UserError(
                    f"The store answers questions but takes no writes ({first_line(error)}). Check that this user may "
                    "write there and that its disk has room, then start the same command again."
                ) from error
            else:
                self._connection.note(error)
                self._own.add(patch)

    def deliver_waiting(self) -> None:
        """Write what waits, if the store takes it; return at once while it need not be tried again."""
        if self.idle or not (self._connection.breaker.due and self._breaker.due):
            return
        if not self._connection.takes_writes():
            return
        before = self._count()
        try:
            for box in self._boxes:
                box.deliver(partial(self._send_kept, box))
        except Exception as error:
            if not is_outage(error):
                raise
            self._breaker.record_failure()
            return
        self._breaker.record_success()
        if before:
            log.warning("The store answers again: %d writes that waited are done.", before)

    def recover(self) -> int:
        """The number of writes that dead processes of this machine have left; they are ours now, and tried at once."""
        left = self._own.of_dead_processes()
        self._boxes[:0] = left
        found = sum(len(box.patches) for box in left)
        self.deliver_waiting()
        return found

    def flush(self, timeout_s: float) -> bool:
        """Whether nothing waits any more, after at most `timeout_s` seconds; what is left stays."""
        until = time.monotonic() + timeout_s
        self.deliver_waiting()
        while self._count() and time.monotonic() < until:
            time.sleep(min(1.0, max(self._connection.breaker.pause_s, self._breaker.pause_s)))
            self.deliver_waiting()
        for box in self._boxes:
            if not box.patches:
                box.close()
        self._boxes = [box for box in self._boxes if box.patches or box is self._own]
        return not self._count()

    def _count(self) -> int:
        return sum(len(box.patches) for box in self._boxes)

    def _send(self, patch: RunPatch, again: bool) -> None:
        connection = self._connection
        run_id = apply_patch(connection.client, connection.experiment_id, patch, self._cache.infos, again=again)
        if run_id != patch.run_id:
            self._resolved[patch.run_id] = run_id
        self._proven = True
        self._cache.update(patch.renamed(self.resolve_run_id))

    def _send_kept(self, box: Outbox, patch: RunPatch) -> None:
        """Deliver what was kept; the ids of runs that another process opened are asked for."""
        own = patch.run_id if patch.new else ""
        ready = patch.renamed(lambda known: known if known == own else self._find(known))
        try:
            self._send(ready, again=True)
        except Exception as error:
            if is_outage(error) and not box.is_hopeless(first_line(error)):
                raise
            self._refuse(box, ready, error)

    def _find(self, provisional: str) -> str:
        if provisional not in self._resolved:
            connection = self._connection
            found = find_provisional(connection.client, connection.experiment_id, provisional)
            if found is None:
                return provisional
            self._resolved[provisional] = found
        return self._resolved[provisional]

    def _refuse(self, box: Outbox, patch: RunPatch, error: Exception) -> None:
        """Set aside what the store will not take; a run that it should have ended ends as failed."""
        folder = box.refuse(patch, f"{type(error).__name__}: {error}")
        log.warning("The store refuses a write for good (%s); it is kept in %s.", first_line(error), folder)
        if patch.status and patch.status != "RUNNING" and not PROVISIONAL.fullmatch(patch.run_id):
            reason = f"The store refused what should have been written ({first_line(error)}); it is kept in {folder}."
            tags = {schema.STATUS_REASON: reason, schema.FAILURE_KIND: "refused"}
            try:
                self._send(RunPatch(patch.run_id, patch.at_ms, tags=tags, status="FAILED"), again=True)
            except Exception as second:
                if is_outage(second):
                    raise
                log.warning("The run %s could not be closed either (%s).", patch.run_id, first_line(second))
