"""Runs as values, and a cache of an experiment's runs that costs milliseconds to bring up to date."""

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import Run

from lamdagent.tracking.schema import FINGERPRINT, KIND, PARENT_RUN, SCHEMA, SCHEMA_TAG

OURS = f"tags.`{SCHEMA_TAG}` = '{SCHEMA}'"
"""Filter for runs that this package wrote."""
PAGE = 500
"""Runs a full read asks for at once; the time per run does not depend on it."""
NEWEST = 10
"""Runs a refresh asks for at once; it goes on as long as a page holds something new."""


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


def record_of(run: Run) -> RunRecord:
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
        params=data.params,
        metrics=data.metrics,
        tags=data.tags,
    )


def scan(client: MlflowClient, experiment_id: str, condition: str = OURS) -> list[RunRecord]:
    """All runs that fit, oldest first. By a keyset: MLflow's page tokens are offsets, and others write meanwhile."""
    found: dict[str, RunRecord] = {}
    since, token = 0, None
    with _no_gc():
        while True:
            where = f"{condition} AND attributes.start_time >= {since}"
            page = client.search_runs([experiment_id], where, 1, PAGE, ["attributes.start_time ASC"], token)
            found.update((run.info.run_id, record_of(run)) for run in page)
            if not page.token:
                return list(found.values())
            last = page[-1].info.start_time
            # More than a page in one millisecond: only there the token has to do.
            token = page.token if last == since else None
            since = last


class RunCache:
    """Our runs of one experiment. A `refresh` sees what others start and finish, not what they edit later."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        """Reads nothing yet."""
        self._client = client
        self._experiment_id = experiment_id
        self._runs: dict[str, RunRecord] | None = None
        self._touched: set[str] = set()

    def touch(self, run_id: str) -> None:
        """Read `run_id` again at the next refresh: this process has written to it."""
        self._touched.add(run_id)

    def refresh(self) -> list[RunRecord]:
        """All runs, oldest first: everything the first time, afterwards only what is new."""
        if self._runs is None:
            self._runs = {record.run_id: record for record in scan(self._client, self._experiment_id)}
        else:
            self._read_newest("start_time")
            self._read_newest("end_time")
            self._keep(record_of(self._client.get_run(run_id)) for run_id in self._touched)
        self._touched.clear()
        return sorted(self._runs.values(), key=lambda record: (record.start_ms, record.run_id))

    def resync(self) -> list[RunRecord]:
        """Forget and read everything: sees late tags, metrics and deletions by others too."""
        self._runs = None
        return self.refresh()

    def finished(self, fingerprint: str) -> RunRecord | None:
        """The newest finished run of `fingerprint` among those already read."""
        fits = (r for r in (self._runs or {}).values() if r.status == "FINISHED")
        return max((r for r in fits if r.tags.get(FINGERPRINT) == fingerprint), key=lambda r: r.start_ms, default=None)

    def _read_newest(self, attribute: str) -> None:
        """Newest first by `attribute`, until a whole page is already known.

        No watermark: clocks of several machines differ, and a page of known runs costs little.
        """
        token = None
        order = [f"attributes.{attribute} DESC"]
        while True:
            page = self._client.search_runs([self._experiment_id], OURS, 1, NEWEST, order, token)
            news = self._keep(record_of(run) for run in page)
            token = page.token
            if not news or not token:
                return

    def _keep(self, records: Iterable[RunRecord]) -> int:
        """Store `records` of live runs; how many were new or had changed their status."""
        runs = self._runs if self._runs is not None else {}
        news = 0
        for record in records:
            known = runs.get(record.run_id)
            news += known is None or (known.status, known.end_ms) != (record.status, record.end_ms)
            runs[record.run_id] = record
        return news


@contextmanager
def _no_gc() -> Iterator[None]:
    """The collector walks the ORM's objects again and again: off, a scan takes 2.6 times less."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
