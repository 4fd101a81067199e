"""The store: one experiment of an MLflow tracking store, written and read in this package's words."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow.exceptions import MlflowException

from lamdagent.errors import UserError
from lamdagent.text import hide_passwords
from lamdagent.tracking import schema, weights
from lamdagent.tracking.connect import find_experiment, open_client, open_to_look, resolve_uri
from lamdagent.tracking.delivery.connection import Connection
from lamdagent.tracking.delivery.outbox import Outbox
from lamdagent.tracking.delivery.queue import Backlog, DeliveryQueue
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.outage import fail_fast, is_outage
from lamdagent.tracking.ownership import claims
from lamdagent.tracking.ownership.orphans import Orphans
from lamdagent.tracking.patch import (
    PROVISIONAL,
    Curve,
    RunCreation,
    RunPatch,
    cut_params,
    cut_tags,
    now_ms,
    owned,
    provisional_id,
    resolved,
    with_pending,
)
from lamdagent.tracking.queries import NEWEST_FIRST, OURS, Experiments, active_experiments, ask, quoted
from lamdagent.tracking.read_only import sqlite_file
from lamdagent.tracking.relocate import relocate_experiment
from lamdagent.tracking.run_cache import RunCache
from lamdagent.tracking.runs import RunRecord

HEARTBEAT_S = 60.0
"""Seconds between two heartbeats of a search."""


class RunStore:
    """Opens, updates, finishes, fails and queries the runs of one experiment; many runs may be open at once.

    What cannot be written is kept on disk and written later, in order; `runs` shows it meanwhile. A run opened in an
    outage has a provisional id, which every method takes for ever; `resolve_run_id` gives the store's. `client`,
    `connection`, `cache`, `queue` and `orphans` are for this package, `tracking`, alone.
    """

    def __init__(self, uri: str | None, experiment: str, *, look: bool = False) -> None:
        """Open the store at `uri` (None: MLFLOW_TRACKING_URI, then MLflow's default) and find or create `experiment`.

        `look`: only to read an experiment that is there; no byte of a database changes, and nothing may be written.

        Raises:
            UserError: the address is wrong, nothing answers there, or the experiment was deleted.
        """
        self.uri = resolve_uri(uri)
        """Absolute: good in every working directory and for every child process."""
        fail_fast()
        self.client = open_to_look(self.uri) if look else open_client(self.uri)
        self.experiment = experiment
        try:
            self.experiment_id = find_experiment(self.client, experiment, self.uri)
        except Exception as error:
            if isinstance(error, UserError) or not is_outage(error):
                raise
            problem = hide_passwords(f"{self.uri} has stopped answering while it was opened ({error})")
            raise UserError(f"tracking.uri: {problem}. Start the same command again when it is back.") from error
        outbox = Outbox(self.uri, experiment)
        self.connection = Connection(self.client, self.experiment_id, outbox.folder)
        self.cache = RunCache(self.client, self.experiment_id)
        self.queue = DeliveryQueue(self.connection, outbox, self.cache)
        self.orphans = Orphans(self.connection, self.queue, self.cache)
        local = self.uri.startswith("sqlite") and not look
        self.moved_from = relocate_experiment(self.client, self.experiment_id, sqlite_file(self.uri)) if local else None
        """The folder that an SQLite file was in when its artifacts were written, where they have been found again."""
        self._experiments = Experiments(self.client)
        self._beat = time.monotonic()

    # Writing -----------------------------------------------------------------------------------------------------

    def open(
        self,
        search_run_id: str,
        kind: Literal["base", "action"],
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        *,
        parents: Sequence[str] = (),
        text: str = "",
    ) -> str:
        """Open a run below a search before its work starts; the run's id. See `searches.start_search` for a search.

        `parents`: run ids in slot order, of any experiment; tag, model inputs and links of the lineage are written
        from them. `text`: the description, Markdown.
        """
        below = {schema.PARENT_RUN: search_run_id, schema.PARENTS: json.dumps(list(parents))}
        new = RunCreation(name, cut_params(params), list(parents), text)
        run_id = provisional_id()
        self.queue.write(owned(kind, RunPatch(run_id, now_ms(), new, {**tags, **below})))
        return self.resolve_run_id(run_id)

    def update(
        self,
        run_id: str,
        *,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
        texts: Mapping[str, str] | None = None,
        folders: Mapping[str, Path] | None = None,
        traces: Sequence[str] = (),
        status: str = "",
    ) -> None:
        """Add to a run, open or ended; what is there under the same name is replaced.

        Args:
            run_id: Of this experiment.
            tags: Cut to what MLflow keeps.
            metrics: Shown on the run and on its model.
            step: Of `metrics`.
            texts: Artifact path -> content.
            folders: Artifact folder -> local folder whose files are copied there.
            traces: Ids of traces that belong to the run.
            status: MLflow's word; `RUNNING` opens the run again, others end it.
        """
        patch = RunPatch(
            run_id,
            now_ms(),
            tags=cut_tags(tags or {}),
            metrics=dict(metrics or {}),
            step=step,
            texts=dict(texts or {}),
            folders={path: str(folder) for path, folder in (folders or {}).items()},
            traces=list(traces),
            status=status,
        )
        self.queue.write(patch)

    def finish(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float],
        curves: Sequence[Curve] = (),
        texts: Mapping[str, str] | None = None,
        folders: Mapping[str, Path] | None = None,
        staging: Path | None = None,
        model: ModelEntry | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write everything, and FINISHED last: a finished run is complete. May be called again after a failure.

        Args:
            run_id: The open run.
            metrics: Final values; they are shown on the run and on its model.
            curves: The trainer's own figures, any number.
            texts: Artifact path -> content.
            folders: Artifact folder -> local folder whose files are copied there.
            staging: Weights in Hugging Face layout. CONSUMED: use `weights` afterwards.
            model: What the run made; becomes an output of the run.
            tags: Known only at the end.
        """
        patch = RunPatch(
            run_id,
            now_ms(),
            tags=cut_tags(tags or {}),
            metrics=dict(metrics),
            curves=list(curves),
            texts=dict(texts or {}),
            folders={path: str(folder) for path, folder in (folders or {}).items()},
            weights=str(staging) if staging is not None else "",
            model=model,
            status="FINISHED",
        )
        self.queue.write(patch)

    def fail(self, run_id: str, reason: str, details: str = "", kind: str = "error") -> None:
        """Close the run as FAILED with a reason for people; `details` (a traceback) becomes an artifact."""
        tags = {schema.STATUS_REASON: reason, schema.FAILURE_KIND: kind}
        self.update(run_id, tags=tags, texts={schema.FAILURE: details} if details else {}, status="FAILED")

    def claim(self, run_id: str) -> bool:
        """Whether the run, opened with the tag CLAIM = REQUESTED, may do its work; if not, it is deleted again.

        False when another process does the same or has done it; that run is among the `runs` from the next call on.
        In an outage the work is done without asking, at worst twice, which harms nothing.
        """
        run_id = self.resolve_run_id(run_id)
        winner = None
        if not PROVISIONAL.fullmatch(run_id):
            run = self.cache.get(run_id)
            winner = self.connection.attempt(lambda: claims.claim(self.client, run_id, run, self.orphans.is_orphaned))
        held = RunPatch(run_id, now_ms(), tags={schema.CLAIM: claims.HELD})
        if winner is None:
            self.queue.write(held)
        elif winner == run_id:
            self.cache.update(held)
        else:
            self.cache.invalidate(winner)
            self.cache.invalidate(run_id)
        return winner in (None, run_id)

    def heartbeat(self, run_id: str) -> None:
        """Deliver what waits, and tell other hosts every `HEARTBEAT_S` that the search still runs. Called often."""
        self.queue.deliver_waiting()
        if run_id and self.available and time.monotonic() - self._beat > HEARTBEAT_S:
            self._beat = time.monotonic()
            own = self.resolve_run_id(run_id)
            with contextlib.suppress(MlflowException):
                self.connection.attempt(lambda: self.client.set_tag(own, schema.HEARTBEAT, str(now_ms())))

    # Reading -----------------------------------------------------------------------------------------------------

    def runs(self) -> list[RunRecord]:
        """The working set of this experiment, oldest first; what waits for the store is shown as if it were there.

        Without runs that may still yield to another one, see claims.py. Milliseconds after the first call.
        """
        self.queue.deliver_waiting()
        connection, cache = self.connection, self.cache
        fresh = connection.attempt(cache.refresh) if cache.filled else connection.ask(cache.refresh)
        shown = cache.known() if fresh is None else fresh
        if pending := self.queue.waiting:
            shown = with_pending(shown, pending, self.experiment_id)
        return [record for record in shown if not claims.is_undecided(record)]

    def find(self, fingerprint: str, tasks: str = "") -> RunRecord | None:
        """The newest FINISHED run of `fingerprint` in any experiment; `tasks`: only with this value of the tag.

        One of this experiment is among the `runs` from the next call on. In an outage: among what is known here.
        """
        known = self.cache.find(fingerprint)
        if known and tasks in ("", known.tags.get(schema.TASKS)):
            return known
        where = f"{OURS} AND status = 'FINISHED' AND tags.`{schema.FINGERPRINT}` = {quoted(fingerprint)}"
        where += f" AND tags.`{schema.TASKS}` = {quoted(tasks)}" if tasks else ""
        asked = self.connection.attempt(lambda: ask(self.client, self._experiments.ids(), where, 1, "start_time DESC"))
        found = asked[0] if asked else None
        if found and found.experiment_id == self.experiment_id:
            self.cache.invalidate(found.run_id)
        return found

    def query(self, where: str, most: int, order: str = NEWEST_FIRST, *, everywhere: bool = False) -> list[RunRecord]:
        """The first `most` runs of anyone that fit MLflow's filter `where`; `everywhere`: in any active experiment.

        Raises:
            STORE_FAULTS: the store does not answer; see outage.py.
        """
        experiments = active_experiments(self.client) if everywhere else self.experiment_id
        return ask(self.client, experiments, where, most, order)

    def weights(self, uri: str) -> Path:
        """Local folder of `runs:/...` or `models:/...`, also of weights that wait for the store.

        Raises:
            UserError: there is no such model, it was pruned, or it is not in a layout that is known.
        """
        uri = resolved(uri, self.resolve_run_id)
        run_id = weights.run_of(uri)
        known = self.cache.get(run_id)
        try:
            here = self.queue.waiting_weights(run_id) or weights.at_hand(known) if run_id else None
            return here or self.connection.ask(lambda: weights.fetch(self.client, uri))
        except UserError:
            if known:  # pruned by another process, perhaps
                self.cache.invalidate(run_id)
            raise

    # Outages -----------------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether nothing waits and the store answers, as far as is known."""
        return self.queue.idle

    @property
    def backlog(self) -> Backlog:
        """Writes that wait for the store."""
        return self.queue.backlog

    def flush(self, timeout_s: float) -> bool:
        """Whether the store has got everything, after at most `timeout_s` seconds; what is left stays."""
        return self.queue.flush(timeout_s)

    def resolve_run_id(self, run_id: str) -> str:
        """The run's id in the store, as far as it has one."""
        return self.queue.resolve_run_id(run_id)
