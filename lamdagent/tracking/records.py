"""Runs as values: the telling few of an experiment however many it holds, and milliseconds to bring them up to date.

A store is asked bounded questions, since reading a run costs a millisecond and more: 100,000 of them are minutes and
gigabytes. What is not among the answers is not forgotten: `Store.by_fingerprint` finds any run before its action would
be done again. Questions without a tag in them are answered ten times faster, so our own runs are told apart here.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from sys import intern
from typing import TYPE_CHECKING

from lamdagent.tracking.owner import this_process
from lamdagent.tracking.schema import (
    FINGERPRINT,
    KIND,
    OWNER,
    PARENT_RUN,
    PARENTS,
    PROVISIONAL,
    SCHEMA,
    SCHEMA_TAG,
    SCORE,
)
from lamdagent.uncollected import uncollected

if TYPE_CHECKING:  # a plan needs records, but no MLflow, whose import takes seconds
    from mlflow import MlflowClient
    from mlflow.entities import Run

OURS = f"tags.`{SCHEMA_TAG}` = '{SCHEMA}'"
"""Filter for runs that this package wrote."""
BEST, NEWEST, FAILED, BASES = 300, 500, 100, 100
"""Runs of each sort that are read: all of an experiment of up to `NEWEST` runs, the telling ones of a larger one."""
SLACK = 100
"""So many more are known before those that tell little are forgotten again."""
ANCESTORS = 500
"""Most ancestors that are read besides."""
PAGE = 500
"""Runs asked for at once; the time per run does not depend on it."""
ALONE, FEW = 5, 20
"""Runs that a refresh asks for besides our own new ones, when nobody else has started one lately, and otherwise: their
clocks may differ. It goes on as long as a page holds something new."""
FRESH_S = 1.0
"""What others do is asked for at most so often; what this process has written is always read."""
TICK_NS = 100_000_000
"""More than the resolution of any file system's time stamps that hold an SQLite store."""
PREFIX = "lamdagent."
SKEW_MS = 10 * 60 * 1000
"""By how much the clocks of a store's writers may differ."""

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class RunRecord:
    """One run as it is in the store, free of MLflow's types."""

    run_id: str
    experiment_id: str
    name: str
    status: str
    """MLflow's word: RUNNING, FINISHED, FAILED, KILLED or SCHEDULED."""
    start_ms: int
    """Since the epoch."""
    end_ms: int | None
    """None while it runs."""
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Last value of each."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """`search`, `base` or `action`; empty for a foreign run."""
        return self.tags.get(KIND, "")

    @property
    def search_run_id(self) -> str:
        """The search run above it; empty for a search run."""
        return self.tags.get(PARENT_RUN, "")

    @cached_property
    def parents(self) -> tuple[str, ...]:
        """Run ids of the inputs, in slot order; none where the tag is missing or no list."""
        try:
            parents = json.loads(self.tags.get(PARENTS) or "[]")
        except (ValueError, RecursionError):  # anyone may write a tag
            return ()
        return tuple(parent for parent in parents if isinstance(parent, str)) if isinstance(parents, list) else ()


def record_of(run: "Run") -> RunRecord:
    """`run` as a value."""
    info, data = run.info, run.data
    return RunRecord(
        run_id=info.run_id,
        experiment_id=info.experiment_id,
        name=info.run_name or "",
        status=info.status,
        start_ms=info.start_time,
        end_ms=info.end_time,
        artifact_uri=info.artifact_uri,
        params=_shared(data.params),
        metrics={intern(key): value for key, value in data.metrics.items()},
        tags=_shared(data.tags),
    )


def _shared(texts: Mapping[str, str]) -> dict[str, str]:
    """Equal texts once in memory: most keys and many values are those of thousands of other runs."""
    return {intern(key): intern(value) for key, value in texts.items()}


def telling(
    client: "MlflowClient", experiment_id: str, *, best: int = BEST, newest: int = NEWEST, failed: int = FAILED
) -> list[RunRecord]:
    """Our runs that tell the most, oldest first; of an experiment with fewer than `newest` runs: all of ours.

    These are the newest, the best actions by the logged score, the latest failures, the bases, all that is running, and
    the ancestors of all these within the experiment. The time depends on these numbers and hardly on the experiment.
    """
    asked = partial(ask, client, experiment_id)
    with uncollected():  # it would walk the ORM's objects: off, a scan takes 2.6 times less
        found = asked("", newest, "attributes.start_time DESC")
        if len(found) >= newest:
            kind = f"tags.`{KIND}` = "
            found += asked(f"{kind}'action'", best, f"metrics.{SCORE} DESC")
            found += asked("attributes.status = 'FAILED'", failed, "attributes.start_time DESC")
            found += asked("attributes.status = 'RUNNING'", newest, "attributes.start_time DESC")
            found += asked(f"{kind}'base'", BASES, "attributes.start_time DESC")
            found += _ancestors(asked, found)
    return _in_order(record for record in found if is_ours(record))


def most_telling(runs: Mapping[str, RunRecord]) -> list[RunRecord]:
    """Of what is known, what `telling` would read."""
    newest = sorted(runs.values(), key=lambda r: (r.start_ms, r.run_id), reverse=True)
    scored = [r for r in newest if r.kind == "action" and r.status == "FINISHED" and SCORE in r.metrics]
    found = sorted(scored, key=lambda r: -r.metrics[SCORE])[:BEST]
    found += [r for r in newest if r.kind == "base"][:BASES]
    found += [r for r in newest if r.status == "FAILED"][:FAILED]
    found += [r for r in newest if r.status == "RUNNING"] + newest[:NEWEST]
    kept = {record.run_id: record for record in found}
    most = len(kept) + ANCESTORS
    for record in found:  # grows while it is gone through: parents, then their parents
        for parent in record.parents:
            if parent in runs and parent not in kept and len(kept) < most:
                kept[parent] = runs[parent]
                found.append(runs[parent])
    return list(kept.values())


def is_ours(record: RunRecord) -> bool:
    """Whether this package wrote the run, in a schema that it reads."""
    return record.tags.get(SCHEMA_TAG) == SCHEMA


def _lean(record: RunRecord) -> RunRecord:
    """Without MLflow's own tags: descriptions and histories that nobody here reads; and without empty ones."""
    tags = {
        k: v for k, v in record.tags.items() if v and (k == PARENT_RUN or k.startswith(PREFIX)) and k != PROVISIONAL
    }
    return replace(record, tags=tags)


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
        return _in_order(self._runs.values())

    @property
    def filled(self) -> bool:
        """Whether anything has been read."""
        return self._runs is not None

    def known(self) -> list[RunRecord]:
        """What the last refresh knew, oldest first; nothing is asked."""
        return _in_order((self._runs or {}).values())

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
            found = {record.run_id: record for record in _by_id(asked, wanted)}
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
            known, lean = runs.get(record.run_id), _lean(record)
            news += known is None or (known.status, known.end_ms) != (lean.status, lean.end_ms)
            if known != lean:  # else the same object stays, by which a history knows that nothing is new
                runs[record.run_id] = lean
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


def ask(client: "MlflowClient", experiment_id: str, where: str, most: int, order: str) -> list[RunRecord]:
    """The first `most` runs of anyone that fit a filter, in MLflow's order, such as `attributes.start_time DESC`.

    Pages are offsets, so a run that others add meanwhile may repeat one.
    """
    found: list[RunRecord] = []
    token = None
    while len(found) < most:
        size = min(PAGE, most - len(found))
        page = client.search_runs([experiment_id], where, 1, size, [order], token)
        found += [record_of(run) for run in page]
        token = page.token
        if not token:
            break
    return found


def _ancestors(asked: "partial[list[RunRecord]]", records: Sequence[RunRecord]) -> list[RunRecord]:
    """Parents, their parents and so on, of this experiment, that are not among `records`."""
    known = {record.run_id for record in records}
    found: list[RunRecord] = []
    latest = records
    while len(found) < ANCESTORS:
        wanted = list(dict.fromkeys(p for r in latest for p in r.parents if p not in known))[: ANCESTORS - len(found)]
        if not wanted:
            break
        known.update(wanted)
        latest = [r for some in range(0, len(wanted), 100) for r in _by_id(asked, wanted[some : some + 100])]
        found += latest
    return found


def _by_id(asked: "partial[list[RunRecord]]", run_ids: Sequence[str]) -> list[RunRecord]:
    plain = [run_id for run_id in run_ids if run_id.isalnum()]  # they come from a tag
    listed = ", ".join(f"'{run_id}'" for run_id in plain)
    return asked(f"attributes.run_id IN ({listed})", len(plain), "attributes.start_time DESC") if plain else []


def _in_order(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Each once, oldest first."""
    unique = {record.run_id: record for record in records}
    return sorted(unique.values(), key=lambda record: (record.start_ms, record.run_id))
