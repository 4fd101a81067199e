"""Orphans: runs that are RUNNING although their process was killed or its machine lost."""

from lamdagent.tracking import schema
from lamdagent.tracking.delivery.connection import Connection
from lamdagent.tracking.delivery.queue import DeliveryQueue
from lamdagent.tracking.owner import HeartbeatMonitor, of_this_host, provably_dead, this_process
from lamdagent.tracking.run_cache import RunCache
from lamdagent.tracking.runs import RunRecord, record_of

SILENCE_S = 15 * 60.0
"""Seconds without a heartbeat after which a search of another host counts as dead; clocks may differ by minutes."""


class Orphans:
    """Finds them among the runs that are known to be open."""

    def __init__(self, connection: Connection, queue: DeliveryQueue, cache: RunCache) -> None:
        """No heartbeat has been seen yet."""
        self._connection = connection
        self._queue = queue
        self._cache = cache
        self._monitor = HeartbeatMonitor()

    def find(self) -> list[str]:
        """Ids of the orphans, once all that their processes could not write is written; none in an outage."""
        mine = this_process().dump()
        running = [r for r in self._cache.running() if r.tags.get(schema.OWNER) != mine]
        return (self._connection.attempt(lambda: self._among(running)) or []) if running else []

    def is_orphaned(self, record: RunRecord) -> bool:
        """Whether the process behind a RUNNING run is gone: provably on this host, by its silence on another."""
        owner = record.tags.get(schema.OWNER, "")
        if provably_dead(owner) or of_this_host(owner):
            return provably_dead(owner)
        search = record_of(self._connection.client.get_run(record.search_run_id or record.run_id))
        sent_ms = int(search.tags.get(schema.HEARTBEAT) or search.start_ms)
        return self._monitor.silent_s(search.run_id, sent_ms) > SILENCE_S

    def _among(self, running: list[RunRecord]) -> list[str]:
        orphaned = [run for run in running if self.is_orphaned(run)]
        if orphaned:
            self._queue.recover()
        if not self._queue.idle:
            return []
        # Read again: it may have ended, or yielded, just before its process did, or found a new owner.
        now = [self._cache.reread(run.run_id) for run in orphaned]
        return [run.run_id for run in now if run and run.status == "RUNNING" and self._unclaimed(run)]

    def _unclaimed(self, run: RunRecord) -> bool:
        return run.tags.get(schema.OWNER) != this_process().dump() and self.is_orphaned(run)
