"""The one cache of runs, and its rule for when a run is stale: milliseconds to bring it up to date, however many runs.

A store is asked bounded questions, since reading a run costs a millisecond and more: 100,000 of them are minutes and
gigabytes. What is not among the answers is not forgotten: `RunStore.find` finds any run before its action would be done
again. Questions without a tag in them are answered ten times faster, so our own runs are told apart here.
"""

import os
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from lamdagent.tracking.owner import this_process
from lamdagent.tracking.patch import RunPatch, created, patched
from lamdagent.tracking.queries import (
    NEWEST,
    NEWEST_FIRST,
    ask,
    by_id,
    in_order,
    pages,
    within_working_set,
    working_set,
)
from lamdagent.tracking.run_info import RunInfoCache
from lamdagent.tracking.runs import RunRecord, is_news, is_ours, lean, record_of
from lamdagent.tracking.schema import FINGERPRINT, OWNER

if TYPE_CHECKING:  # a plan needs records, but no MLflow, whose import takes seconds
    from mlflow import MlflowClient
    from mlflow.entities import Run

SLACK = 100
"""Runs beyond the working set that are known before the cache is cut down to it again."""
ALONE, FEW = 5, 20
"""Runs that a refresh asks for besides our own new ones, when nobody else has started one lately, and otherwise: their
clocks may differ. It goes on as long as a page holds something new."""
FRESH_S = 1.0
"""Seconds for which what others do is not asked for again."""
TICK_NS = 100_000_000
"""More than the resolution of any file system's time stamps that hold an SQLite store."""
SKEW_MS = 10 * 60 * 1000
"""By how much the clocks of a store's writers may differ."""

Stamp = tuple[int, ...]


class RunCache:
    """The working set of one experiment, our tags of each run, and the fixed facts (`infos`) about any run.

    The rule for when a run is stale:

    - A run that has ended is read once. It is stale only after `invalidate`: later edits by others are not seen.
    - A run of another process that is open is stale as soon as the store may hold something new: `FRESH_S` after the
      last look, and for a file not before it was written to. So is the list of runs itself.
    - A run that this process writes is never stale: each delivered patch is applied here.
    - What is fixed about a run (`RunInfo`) is never stale; a run without a model may have made one since.

    Runs of others that a search learns from (`memory.external.feed`) follow the first two points at each refresh. A
    record that has not changed stays the same object: by that a `memory.history.Histories` knows that a trial is not
    stale either.
    """

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        """Nothing is read yet."""
        self._client = client
        self._experiment_id = experiment_id
        self._runs: dict[str, RunRecord] = {}
        self._most = 0
        """The number of runs above which the cache is cut down."""
        self._invalid: set[str] = set()
        self._added = 0
        """Runs opened here since others' were last asked for: they stand before theirs."""
        self._asked = 0.0
        self._stamp: Stamp | None = None
        self.filled = False
        """Whether the working set has been read."""
        self.infos = RunInfoCache()

    def update(self, patch: RunPatch) -> None:
        """Apply a patch that has just been delivered, with the store's ids in it."""
        info = self.infos.get(patch.run_id) if patch.new else None
        if info is not None and self.filled:
            self._added += self.keep([created(patch, self._experiment_id, info.artifact_uri)])
        known = self.get(patch.run_id)
        if known is None:
            self.invalidate(patch.run_id)
        else:
            self.keep([patched(known, patch)])

    def invalidate(self, run_id: str) -> None:
        """Read `run_id`, known or not, at the next refresh."""
        self._invalid.add(run_id)

    def get(self, run_id: str) -> RunRecord | None:
        """The run as it was when it was last read or written here; None where it is not known."""
        return self._runs.get(run_id)

    def find(self, fingerprint: str) -> RunRecord | None:
        """The newest finished run of `fingerprint` among those that are known."""
        fits = (r for r in self._runs.values() if r.status == "FINISHED")
        return max((r for r in fits if r.tags.get(FINGERPRINT) == fingerprint), key=lambda r: r.start_ms, default=None)

    def running(self) -> list[RunRecord]:
        """The runs that were open at the last refresh."""
        return [r for r in self._runs.values() if r.status == "RUNNING"]

    def known(self) -> list[RunRecord]:
        """The runs of the last refresh, oldest first; nothing is asked."""
        return in_order(self._runs.values())

    def refresh(self) -> list[RunRecord]:
        """The runs, oldest first: the first time the whole working set is read, afterwards what is stale."""
        if not self.filled:
            stamp, now = database_stamp(self._client.tracking_uri), time.monotonic()
            records = working_set(self._client, self._experiment_id)
            self._stamp, self._asked, self.filled = stamp, now, True
            self.keep(records)
            self._most = max(NEWEST, len(self._runs)) + SLACK
        else:
            self._read_news()
            for run_id in list(self._invalid):
                self.reread(run_id)
        self._invalid.clear()
        if len(self._runs) > self._most:
            self._runs = {record.run_id: record for record in within_working_set(self._runs)}
            self._most = max(NEWEST, len(self._runs)) + SLACK
        return self.known()

    def reread(self, run_id: str) -> RunRecord | None:
        """The run as it is now; None, and forgotten, when it was deleted."""
        self._invalid.discard(run_id)
        run = self._client.get_run(run_id)
        if run.info.lifecycle_stage == "active":
            self.keep([record_of(run)])
            return record_of(run)
        self._runs.pop(run_id, None)
        return None

    def keep(self, records: Iterable[RunRecord]) -> int:
        """Take in records of live runs of ours; the number of those that are news."""
        news = 0
        for record in records:
            if not (self.filled and is_ours(record)):
                continue
            known, kept = self._runs.get(record.run_id), lean(record)
            news += is_news(known, kept)
            if known != kept:  # else the same object stays, by which a history knows that nothing is new
                self._runs[record.run_id] = kept
        return news

    def _read_news(self) -> None:
        """Read what others have started, ended or deleted; the store is not asked while nothing can be new."""
        now = time.monotonic()
        stamp = database_stamp(self._client.tracking_uri)
        if now - self._asked <= FRESH_S or (stamp and stamp == self._stamp):
            return
        runs, mine = self._runs, this_process().dump()
        open_before = [r.run_id for r in self.running() if r.tags.get(OWNER) != mine]
        # Not from a time that has not come yet: a clock that was wrong for a moment would hide all that is new.
        latest = min(max((r.start_ms for r in runs.values()), default=0), int(time.time() * 1000))
        alone = all(r.tags.get(OWNER) == mine for r in runs.values() if r.start_ms >= latest - SKEW_MS)
        for page in self._started(latest, self._added + (ALONE if alone else FEW)):
            if not self.keep(record_of(run) for run in page):
                break
        self._added = 0
        asked = partial(ask, self._client, self._experiment_id)
        for some in range(0, len(open_before), 100):
            wanted = open_before[some : some + 100]
            found = {record.run_id: record for record in by_id(asked, wanted)}
            self.keep(found.values())
            for gone in set(wanted) - set(found):
                del runs[gone]
        self._stamp, self._asked = stamp, now

    def _started(self, latest: int, size: int) -> Iterator[Iterable["Run"]]:
        """Pages of the newest runs of anyone, down to `SKEW_MS` before `latest`."""
        where = f"attributes.start_time >= {latest - SKEW_MS}"
        search = partial(self._client.search_runs, [self._experiment_id], where, 1, size, [NEWEST_FIRST])
        return pages(search)


def database_stamp(uri: str) -> Stamp | None:
    """Changes with every write to an SQLite store; None where that cannot be told.

    A store that was written to within the tick of the file system's clock could be written to again unseen.
    """
    if not uri.startswith("sqlite:"):
        return None
    from lamdagent.tracking.read_only import sqlite_file

    found: list[int] = []
    for suffix in ("", "-wal"):
        try:
            stat = os.stat(f"{sqlite_file(uri)}{suffix}")
        except FileNotFoundError:  # no log while nobody has the file open
            continue
        if abs(time.time_ns() - stat.st_mtime_ns) < TICK_NS:
            return None
        found += [stat.st_mtime_ns, stat.st_size]
    return tuple(found)
