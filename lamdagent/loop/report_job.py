"""The report on the search run, written while an action runs and nobody waits."""

import logging
import time

from lamdagent.report.document import document, shown_records
from lamdagent.report.render import page
from lamdagent.tracking import schema
from lamdagent.tracking.lineage import server_page
from lamdagent.tracking.reading import metric_history
from lamdagent.tracking.store import RunStore

REPORT_S = 5.0
"""Seconds between two reports."""
log = logging.getLogger(__name__)


class ReportJob:
    """Keeps the report of one search up to date."""

    def __init__(self, store: RunStore) -> None:
        """Nothing is written yet."""
        self._store = store
        self._stale = False
        self._written = -REPORT_S

    def mark_stale(self) -> None:
        """Note that the store says more than the report."""
        self._stale = True

    def refresh_if_due(self, search_run_id: str) -> None:
        """Write the report if it is stale, at most every `REPORT_S`."""
        if self._stale and time.monotonic() - self._written > REPORT_S:
            self.refresh(search_run_id)

    def refresh(self, search_run_id: str) -> None:
        """Write the report, except in an outage; a fault of it is logged and hurts nothing."""
        if not self._store.available:
            return
        self._stale = False
        try:
            self._write(self._store.resolve_run_id(search_run_id))
        except Exception:
            log.warning("The report could not be written.", exc_info=log.isEnabledFor(logging.DEBUG))
        self._written = time.monotonic()

    def _write(self, run_id: str) -> None:
        records = {record.run_id: record for record in self._store.runs()}
        shown = shown_records(list(records.values()), run_id)
        curve = metric_history(self._store, run_id, schema.SCORE)
        text = page(document(records[run_id], shown, curve), server_page(self._store.uri))
        self._store.update(run_id, texts={schema.REPORT: text})
