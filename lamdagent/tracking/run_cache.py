"""Runs as values: the telling few of an experiment however many it holds, and milliseconds to bring them up to date.

A store is asked bounded questions, since reading a run costs a millisecond and more: 100,000 of them are minutes and
gigabytes. What is not among the answers is not forgotten: `Store.by_fingerprint` finds any run before its action would
be done again. Questions without a tag in them are answered ten times faster, so our own runs are told apart here.
"""

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from lamdagent.tracking.owner import this_process
from lamdagent.tracking.queries import NEWEST, ask, by_id, in_order, most_telling, telling
from lamdagent.tracking.runs import RunRecord, is_ours, lean, record_of
from lamdagent.tracking.schema import (
    FINGERPRINT,
    OWNER,
)

if TYPE_CHECKING:  # a plan needs records, but no MLflow, whose import takes seconds
    from mlflow import MlflowClient

SLACK = 100
"""So many more are known before those that tell little are forgotten again."""
ALONE, FEW = 5, 20
"""Runs that a refresh asks for besides our own new ones, when nobody else has started one lately, and otherwise: their
clocks may differ. It goes on as long as a page holds something new."""
FRESH_S = 1.0
"""What others do is asked for at most so often; what this process has written is always read."""
TICK_NS = 100_000_000
"""More than the resolution of any file system's time stamps that hold an SQLite store."""
SKEW_MS = 10 * 60 * 1000
"""By how much the clocks of a store's writers may differ."""

Stamp = tuple[int, ...]


class RunCache:
    """The telling runs of one experiment, however many it comes to hold; of their tags, ours.

    A `refresh` sees what others start and finish, not what they edit later.
    """

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        """Reads nothing yet."""
        self._client = client
        self._experiment_id = experiment_id
        self._runs: dict[str, RunRecord] | None = None
        self._most = 0
        """Above so many, runs are forgotten."""
        self._touched: set[str] = set()
        self._added = 0
        """Runs opened here since others' were last asked for: they stand before theirs."""
        self._asked = 0.0
        self._stamp: Stamp | None = None

    def touch(self, run_id: str) -> None:
        """Read `run_id` again at the next refresh: it has been written to, or is wanted though it tells little."""
        self._touched.add(run_id)

    def written(self, run_id: str, after: Callable[[RunRecord], RunRecord]) -> None:
        """This process has written to `run_id`: told instead of read again, but for a run that is not known yet."""
        known = self.get(run_id)
        if known is None:
            self._touched.add(run_id)
        else:
            self._keep([after(known)])

    def add(self, record: RunRecord) -> None:
        """A run that this process has opened."""
        if self._runs is not None:
            self._added += self._keep([record])

    def get(self, run_id: str) -> RunRecord | None:
        """The run as it was when it was last read or written here; None where it is not known."""
        return (self._runs or {}).get(run_id)

    def doubt(self, run_id: str) -> None:
        """Read `run_id` again at the next refresh if it is known: others may have edited it."""
        if run_id in (self._runs or {}):
            self._touched.add(run_id)

    def reread(self, run_id: str) -> RunRecord | None:
        """The run as it is now; None, and forgotten, when it was deleted."""
        self._touched.discard(run_id)
        run = self._client.get_run(run_id)
        if run.info.lifecycle_stage == "active":
            self._keep([record_of(run)])
            return record_of(run)
        if self._runs is not None:
            self._runs.pop(run_id, None)
        return None

    def refresh(self) -> list[RunRecord]:
        """What is known, oldest first: `telling` runs the first time, afterwards only news are read."""
        if self._runs is None:
            self._stamp, self._asked = database_stamp(self._client.tracking_uri), time.monotonic()
            self._runs = {}
            self._keep(telling(self._client, self._experiment_id))
            self._most = max(NEWEST, len(self._runs)) + SLACK
        else:
            self._read_news_of(self._runs)
            for run_id in list(self._touched):
                self.reread(run_id)
        self._touched.clear()
        if len(self._runs) > self._most:
            self._runs = {record.run_id: record for record in most_telling(self._runs)}
            self._most = max(NEWEST, len(self._runs)) + SLACK
        return in_order(self._runs.values())

    @property
    def filled(self) -> bool:
        """Whether anything has been read."""
        return self._runs is not None

    def known(self) -> list[RunRecord]:
        """What the last refresh knew, oldest first; nothing is asked."""
        return in_order((self._runs or {}).values())

    def clear(self) -> None:
        """Forget everything: the next refresh sees late tags, metrics and deletions by others too."""
        self._runs = None

    def finished(self, fingerprint: str) -> RunRecord | None:
        """The newest finished run of `fingerprint` among those already read."""
        fits = (r for r in (self._runs or {}).values() if r.status == "FINISHED")
        return max((r for r in fits if r.tags.get(FINGERPRINT) == fingerprint), key=lambda r: r.start_ms, default=None)

    def running(self) -> list[RunRecord]:
        """Runs that were open at the last refresh."""
        return [r for r in (self._runs or {}).values() if r.status == "RUNNING"]

    def _read_news_of(self, runs: dict[str, RunRecord]) -> None:
        """What others have started, ended or deleted since the last time; nothing is asked when nothing can be new."""
        now = time.monotonic()
        stamp = database_stamp(self._client.tracking_uri)
        if now - self._asked <= FRESH_S or (stamp and stamp == self._stamp):
            return
        mine = this_process().dump()
        open_before = [r.run_id for r in runs.values() if r.status == "RUNNING" and r.tags.get(OWNER) != mine]
        # Not from a time that has not come yet: a clock that was wrong for a moment would hide all that is new.
        latest = min(max((r.start_ms for r in runs.values()), default=0), int(time.time() * 1000))
        alone = all(r.tags.get(OWNER) == mine for r in runs.values() if r.start_ms >= latest - SKEW_MS)
        self._read_started(latest, self._added + (ALONE if alone else FEW))
        self._added = 0
        asked = partial(ask, self._client, self._experiment_id)
        for some in range(0, len(open_before), 100):
            wanted = open_before[some : some + 100]
            found = {record.run_id: record for record in by_id(asked, wanted)}
            self._keep(found.values())
            for gone in set(wanted) - set(found):
                del runs[gone]
        self._stamp, self._asked = stamp, now

    def _read_started(self, latest: int, size: int) -> None:
        """Newest first, `size` at once, until a whole page is already known or too old to be news."""
        token = None
        where = f"attributes.start_time >= {latest - SKEW_MS}"
        while True:
            order = ["attributes.start_time DESC"]
            page = self._client.search_runs([self._experiment_id], where, 1, size, order, token)
            news = self._keep(record_of(run) for run in page)
            token = page.token
            if not news or not token:
                return

    def _keep(self, records: Iterable[RunRecord]) -> int:
        """Store `records` of live runs of ours; how many were new or had changed their status."""
        runs = self._runs if self._runs is not None else {}
        news = 0
        for record in records:
            if not is_ours(record):
                continue
            known, kept = runs.get(record.run_id), lean(record)
            news += known is None or (known.status, known.end_ms) != (kept.status, kept.end_ms)
            if known != kept:  # else the same object stays, by which a history knows that nothing is new
                runs[record.run_id] = kept
        return news


def database_stamp(uri: str) -> Stamp | None:
    """Changes with every write to an SQLite store; None where that cannot be told.

    A store that was written to within the tick of the file system's clock could be written to again unseen.
    """
    if not uri.startswith("sqlite"):
        return None
    from lamdagent.tracking.connect import sqlite_file

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
