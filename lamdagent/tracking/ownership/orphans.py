"""Runs that are RUNNING though nobody runs them: their process was killed or its machine lost."""

from mlflow import MlflowClient

from lamdagent.tracking import schema
from lamdagent.tracking.delivery.queue import Courier
from lamdagent.tracking.owner import Watch, of_this_host, provably_dead, this_process
from lamdagent.tracking.run_cache import RunCache
from lamdagent.tracking.runs import RunRecord, record_of

SILENCE_S = 15 * 60.0
"""A search of another host that gave no sign of life for so long counts as dead; clocks may differ by minutes."""


class Orphans:
    """Finds them among the runs that are known to be open."""

    def __init__(self, client: MlflowClient, courier: Courier, cache: RunCache) -> None:
        """Nobody has been seen yet."""
        self._client = client
        self._courier = courier
        self._cache = cache
        self._watch = Watch()

    def left(self) -> list[str]:
        """Ids of what dead processes left RUNNING, once all that they could not write is written; none in an outage."""
        mine = this_process().dump()
        running = [r for r in self._cache.running() if r.tags.get(schema.OWNER) != mine]
        return (self._courier.attempt(lambda: self._among(running)) or []) if running else []

    def deserted(self, record: RunRecord) -> bool:
        """Whether the process behind a RUNNING run is gone: provably on this host, by its silence on another."""
        owner = record.tags.get(schema.OWNER, "")
        if provably_dead(owner) or of_this_host(owner):
            return provably_dead(owner)
        search = record_of(self._client.get_run(record.search_run_id or record.run_id))
        seen = int(search.tags.get(schema.ALIVE) or search.start_ms)
        return self._watch.silent_s(search.run_id, seen) > SILENCE_S

    def _among(self, running: list[RunRecord]) -> list[str]:
        deserted = [run for run in running if self.deserted(run)]
        if deserted:
            self._courier.take_over()
        if not self._courier.idle:
            return []
        # Read again: it may have ended, or yielded, just before its process did, or found a new owner.
        now = [self._cache.reread(run.run_id) for run in deserted]
        return [run.run_id for run in now if run and run.status == "RUNNING" and self._unclaimed(run)]

    def _unclaimed(self, run: RunRecord) -> bool:
        return run.tags.get(schema.OWNER) != this_process().dump() and self.deserted(run)
