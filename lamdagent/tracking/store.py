"""The store: one experiment of an MLflow tracking store, written and read in this package's words."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lamdagent.errors import UserError
from lamdagent.tracking import relocate, schema, weights
from lamdagent.tracking.artifact_layout import local_root
from lamdagent.tracking.connect import find_experiment, hide_password, open_client, resolve_uri, sqlite_file
from lamdagent.tracking.delivery.patch import PROVISIONAL, Change, Curve, New, after, applied, opened, provisional_id
from lamdagent.tracking.delivery.queue import Courier
from lamdagent.tracking.leaderboard import leaderboard_path
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.outage import be_brisk, is_outage
from lamdagent.tracking.owner import this_process
from lamdagent.tracking.ownership import claims
from lamdagent.tracking.ownership.orphans import Orphans
from lamdagent.tracking.queries import OURS, ask, telling
from lamdagent.tracking.run_cache import RunCache
from lamdagent.tracking.runs import RunRecord, record_of

MAX_PARAM = 6000
"""Characters that MLflow keeps of a param."""
MAX_TAG = 8000
"""Characters that MLflow keeps of a tag."""
MAX_TRIALS = 10_000
"""Most trials of one search that are counted."""
EXPERIMENTS_S = 60.0
"""How long a list of all experiments is good for: a new one has hardly anything in it."""


class Store:
    """Writes and reads one experiment. Holds no active run: many runs may be open at once, in many processes.

    What cannot be written is kept on disk and written later, in order, see `courier`; `runs` shows it meanwhile.
    A run opened in an outage has a provisional id, which every method takes for ever; `real` tells the store's.
    """

    def __init__(self, uri: str | None, experiment: str) -> None:
        """Open the store at `uri` (None: MLFLOW_TRACKING_URI, then MLflow's default) and find or create `experiment`.

        Raises:
            UserError: the address is wrong, nothing answers there, or the experiment was deleted.
        """
        self.uri = resolve_uri(uri)
        """Absolute: good in every working directory and for every child process."""
        be_brisk()
        self.client = open_client(self.uri, ours=True)
        self.experiment = experiment
        try:
            self.experiment_id = find_experiment(self.client, experiment, self.uri)
        except Exception as error:
            if isinstance(error, UserError) or not is_outage(error):
                raise
            said = hide_password(f"{self.uri} has stopped answering while it was opened ({error})")
            raise UserError(f"tracking.uri: {said}. Start the same command again when it is back.") from error
        self.courier = Courier(self.client, self.uri, experiment, self.experiment_id)
        """What waits for the store, and how long it is waited for."""
        self.moved_from = self._follow() if self.uri.startswith("sqlite") else None
        """The folder that an SQLite file was in when its artifacts were written, where they have been found again."""
        self._cache = RunCache(self.client, self.experiment_id)
        self._orphans = Orphans(self.client, self.courier, self._cache)
        self._experiments: list[str] = []
        self._experiments_asked = -math.inf

    # Searches ----------------------------------------------------------------------------------------------------

    def start_search(
        self,
        search_id: str,
        name: str,
        params: Mapping[str, Any],
        config_yaml: str,
        text: str = "",
        tasks: Sequence[str] = (),
    ) -> str:
        """Open the search run, parent of all others. `text`: see `describe_search`; `tasks`: leaderboard columns."""
        run_id = provisional_id()
        tags = {schema.SEARCH_ID: search_id, schema.ALIVE: _now(), schema.DESCRIPTION: self._described(run_id, text)}
        new = New(name, _params(params), leaderboard=list(tasks))
        return self._open("search", Change(run_id, _ms(), new, tags, texts={schema.CONFIG: config_yaml}))

    def describe_search(self, run_id: str, text: str) -> None:
        """Replace the search run's description, Markdown; links to leaderboard and report come first (the UI folds)."""
        self.set_tags(run_id, {schema.DESCRIPTION: self._described(self.real(run_id), text)})

    def find_search(self, search_id: str) -> RunRecord | None:
        """The newest search run of that id, in whatever state."""
        where = f"{OURS} AND tags.`{schema.KIND}` = 'search' AND tags.`{schema.SEARCH_ID}` = {_quoted(search_id)}"
        order = ["attributes.start_time DESC"]
        found = self.courier.ask(lambda: self.client.search_runs([self.experiment_id], where, 1, 1, order))
        return record_of(found[0]) if found else None

    def was_cut_off(self, search: RunRecord) -> bool:
        """Whether it ended before its end, or is left RUNNING by a dead process that nobody could close it for yet."""
        deserted = search.status == "RUNNING" and self.courier.ask(lambda: self._orphans.deserted(search))
        return deserted or search.status in ("FAILED", "KILLED")

    def reopen_search(self, run_id: str) -> None:
        """Make this process the owner of a search run that ended or was left behind; it is RUNNING again."""
        owner = {schema.OWNER: this_process().dump(), schema.ALIVE: _now(), schema.STATUS_REASON: ""}
        self.courier.write(Change(run_id, _ms(), tags=owner, status="RUNNING"))

    def sign_of_life(self, run_id: str) -> None:
        """Tell other hosts that the search still runs; in an outage the next sign makes up for this one."""
        if self.courier.idle:
            self.courier.attempt(lambda: self.client.set_tag(self.real(run_id), schema.ALIVE, _now()))

    def trials_of(self, search_run_id: str) -> list[RunRecord]:
        """The base and action runs of one search, newest first."""
        where = f"tags.`{schema.PARENT_RUN}` = '{self.real(search_run_id)}'"
        order = "attributes.start_time DESC"
        return self.courier.ask(lambda: ask(self.client, self.experiment_id, where, MAX_TRIALS, order))

    def end_search(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"], reason: str = "") -> None:
        """Close the search run; `reason` says why it did not finish."""
        tags = {schema.STATUS_REASON: reason} if reason else {}
        self.courier.write(Change(run_id, _ms(), tags=_tags(tags), status=status))

    def log_progress_metric(self, search_run_id: str, best_score: float, step: int) -> None:
        """Best score after `step` trials: the UI draws the best-so-far curve."""
        self.log_metrics(search_run_id, {schema.SCORE: best_score}, step)

    # Base and action runs ----------------------------------------------------------------------------------------

    def start_run(
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
        """Open a run before its work starts. `parents`: run ids in slot order, of any experiment; `text`: Markdown.

        Tag, model inputs and links of the lineage are all written here.
        """
        ours = {schema.PARENT_RUN: search_run_id, schema.PARENTS: json.dumps(list(parents))}
        new = New(name, _params(params), list(parents), text)
        return self._open(kind, Change(provisional_id(), _ms(), new, {**tags, **ours}))

    def claim(self, run_id: str) -> bool:
        """Whether the run, started with the tag CLAIM = ASKED, may do its work; if not, it is deleted again.

        False when another process does the same or has done it; that run is among the `runs` from the next call on.
        In an outage nobody can be asked: then the work is done, and done twice at worst, which harms nothing.
        """
        run_id = self.real(run_id)
        settled = self.courier.attempt(lambda: self._settled(run_id))
        if settled is None:
            self.set_tags(run_id, {schema.CLAIM: claims.HELD})
        return settled is not False

    def finish_run(
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
            staging: Weights in Hugging Face layout. CONSUMED: use `model_folder` afterwards.
            model: What the run made; becomes an output of the run.
            tags: Known only at the end.
        """
        change = Change(
            run_id,
            _ms(),
            tags=_tags(tags or {}),
            metrics=dict(metrics),
            curves=list(curves),
            texts=dict(texts or {}),
            folders={path: str(folder) for path, folder in (folders or {}).items()},
            weights=str(staging) if staging is not None else "",
            model=model,
            status="FINISHED",
        )
        self.courier.write(change)

    def fail_run(self, run_id: str, reason: str, details: str = "", kind: str = "error") -> None:
        """Close the run as FAILED with a reason for people; `details` (a traceback) becomes an artifact."""
        tags = _tags({schema.STATUS_REASON: reason, schema.FAILURE_KIND: kind})
        texts = {schema.FAILURE: details} if details else {}
        self.courier.write(Change(run_id, _ms(), tags=tags, texts=texts, status="FAILED"))

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Add metrics, also to a finished run (test scores); they are shown on its model too."""
        self.courier.write(Change(run_id, _ms(), metrics=dict(metrics), step=step))

    def log_text(self, run_id: str, path: str, text: str) -> None:
        """Write a text artifact; an older one at `path` is replaced."""
        self.courier.write(Change(run_id, _ms(), texts={path: text}))

    def log_folder(self, run_id: str, path: str, folder: Path) -> None:
        """Write the files of `folder` into the artifact folder `path`; older ones of the same names are replaced."""
        self.courier.write(Change(run_id, _ms(), folders={path: str(folder)}))

    def log_dict(self, run_id: str, path: str, value: Mapping[str, Any]) -> None:
        """Write `value` as JSON."""
        self.log_text(run_id, path, json.dumps(dict(value), indent=2, default=str))

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, cut to what MLflow keeps."""
        self.courier.write(Change(run_id, _ms(), tags=_tags(tags)))

    def real(self, run_id: str) -> str:
        """The run's id in the store, as far as it has one."""
        return self.courier.real(run_id)

    # Weights and traces ------------------------------------------------------------------------------------------

    def artifact_uri(self, run_id: str) -> str | None:
        """Where the run's artifacts are; asked once, since it never changes. None while that cannot be told."""
        run_id = self.real(run_id)
        known, met = self._cache.get(run_id), self.courier.met
        if known is not None:
            return known.artifact_uri
        unknown = PROVISIONAL.fullmatch(run_id)
        run = met.get(run_id) or (None if unknown else self.courier.attempt(lambda: met.of(self.client, run_id)))
        return run.artifact_uri if run else None

    def model_folder(self, run_id: str) -> Path:
        """Local folder of the run's weights, see `weights.model_folder`; of a run that waits, where it waits."""
        run_id = self.real(run_id)
        return self._kept(run_id) or self.courier.ask(lambda: weights.model_folder(self.client, run_id))

    def located(self, uri: str) -> str:
        """`runs:/...` with the run's id in the store, where it was opened while the store was away."""
        return PROVISIONAL.sub(lambda match: self.real(match[0]), uri)

    def folder(self, uri: str) -> Path:
        """Local folder of `runs:/...` or `models:/...`, others' too, see `weights.download_model`."""
        uri = self.located(uri)
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        ours = uri.startswith("runs:/") and path == schema.MODEL_FOLDER
        kept = (self._kept(run_id) or self._at_hand(run_id)) if ours else None
        try:
            return kept or self.courier.ask(lambda: weights.fetch(self.client, uri))
        except UserError:
            self._cache.doubt(run_id)  # pruned by another process, perhaps
            raise

    def link_traces(self, trace_ids: Sequence[str], run_id: str) -> None:
        """Show the traces of a decision on the run that it decided."""
        if trace_ids:
            self.courier.write(Change(run_id, _ms(), traces=list(trace_ids)))

    # Reading -----------------------------------------------------------------------------------------------------

    def runs(self) -> list[RunRecord]:
        """Our runs of this experiment, oldest first, other processes' too; milliseconds after the first call.

        Without those that have not settled yet who does their work.
        """
        courier = self.courier
        courier.deliver_waiting()
        self._take_note()
        known = courier.attempt(self._cache.refresh) if self._cache.filled else courier.ask(self._cache.refresh)
        shown = self._cache.known() if known is None else known
        if pending := courier.waiting:
            shown = applied(shown, pending, self.experiment_id)
        return [record for record in shown if not claims.undecided(record)]

    def resync(self) -> list[RunRecord]:
        """Like `runs`, but read anew: sees what others edited or deleted in finished runs."""
        self._cache.clear()
        return self.runs()

    def every(self) -> list[RunRecord]:
        """All our runs of this experiment, oldest first, read anew: a millisecond or two for each."""
        return telling(self.client, self.experiment_id, newest=sys.maxsize)

    def by_fingerprint(self, fingerprint: str, tasks: str = "") -> RunRecord | None:
        """The newest FINISHED run of `fingerprint` in any experiment; `tasks`: only with this value of the tag.

        One of this experiment is among the `runs` from the next call on, however little it tells.
        In an outage: among what is known here.
        """
        known = self._cache.finished(fingerprint)
        if known and tasks in ("", known.tags.get(schema.TASKS)):
            return known
        where = f"{OURS} AND status = 'FINISHED' AND tags.`{schema.FINGERPRINT}` = {_quoted(fingerprint)}"
        where += f" AND tags.`{schema.TASKS}` = {_quoted(tasks)}" if tasks else ""

        order = ["start_time DESC"]

        def newest() -> list[RunRecord]:
            return [record_of(r) for r in self.client.search_runs(self._every_experiment(), where, 1, 1, order)]

        runs = self.courier.attempt(newest)
        found = runs[0] if runs else None
        if found and found.experiment_id == self.experiment_id:
            self._cache.touch(found.run_id)
        return found

    def close_orphans(self) -> list[str]:
        """Close as FAILED what dead processes left RUNNING, and return the ids. Asks nothing where all are ours.

        What those processes could not write is written first. Nothing is done in an outage: the next call will.
        """
        reason = "The process that ran it is gone (killed, or the machine restarted)."
        orphans = self._orphans.left()
        for run_id in orphans:
            self.fail_run(run_id, reason, kind="orphan")
        return orphans

    def close_own(self, search_run_id: str, reason: str) -> list[str]:
        """Close as FAILED what this process has left RUNNING under a search, wherever it was cut off; the ids."""
        where = f"attributes.status = 'RUNNING' AND tags.`{schema.PARENT_RUN}` = '{self.real(search_run_id)}'"
        order = "attributes.start_time DESC"
        found = None
        if self.courier.idle:
            found = self.courier.attempt(lambda: ask(self.client, self.experiment_id, where, MAX_TRIALS, order))
        if found is None:
            found = [r for r in self.runs() if r.status == "RUNNING" and r.search_run_id == self.real(search_run_id)]
        own = [run.run_id for run in found if run.tags.get(schema.OWNER) == this_process().dump()]
        for run_id in own:
            self.fail_run(run_id, reason, kind="interrupted")
        return own

    # Inside ------------------------------------------------------------------------------------------------------

    def _open(self, kind: str, change: Change) -> str:
        """Open a run that is ours from its first moment; its id."""
        ours = {schema.SCHEMA_TAG: schema.SCHEMA, schema.KIND: kind, schema.OWNER: this_process().dump()}
        tags = {key: value for key, value in _tags({**change.tags, **ours}).items() if value}
        self.courier.write(Change(**{**vars(change), "tags": tags}))
        return self.real(change.run_id)

    def _every_experiment(self) -> list[str]:
        """Ids; one that others have made in the last `EXPERIMENTS_S` may be missing."""
        if time.monotonic() - self._experiments_asked > EXPERIMENTS_S:
            self._experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
            self._experiments_asked = time.monotonic()
        return self._experiments

    def _take_note(self) -> None:
        """What has been written here is known here: it is not read again."""
        for change in self.courier.delivered:
            run = self.courier.met.get(change.run_id) if change.new else None
            if run is not None:
                self._cache.add(opened(change, self.experiment_id, run.artifact_uri))
            self._cache.written(change.run_id, partial(after, change=change))
        self.courier.delivered.clear()

    def _settled(self, run_id: str) -> bool:
        if PROVISIONAL.fullmatch(run_id):
            return True
        self._take_note()
        run = self._cache.get(run_id) or record_of(self.client.get_run(run_id))
        winner = claims.settle(self.client, run, self._orphans.deserted)
        if winner == run_id:
            self._cache.written(run_id, lambda run: replace(run, tags={**run.tags, schema.CLAIM: claims.HELD}))
            return True
        self._cache.touch(winner)
        self._cache.touch(run_id)
        self.client.set_terminated(run_id, "KILLED")
        self.client.delete_run(run_id)
        return False

    def _kept(self, run_id: str) -> Path | None:
        """Weights that wait for the store."""
        found = (Path(c.weights) for c in self.courier.waiting if c.run_id == run_id and c.weights)
        return next((folder for folder in found if folder.is_dir()), None)

    def _at_hand(self, run_id: str) -> Path | None:
        """Weights on a local root, of a run that is known to have some."""
        known = self._cache.get(run_id)
        if known is None or known.status != "FINISHED" or known.tags.get(schema.PRUNED):
            return None
        root = local_root(known.artifact_uri)
        return root / schema.MODEL_FOLDER if root and (root / schema.MODEL_FOLDER).is_dir() else None

    def _described(self, run_id: str, text: str) -> str:
        board = f"[Leaderboard]({leaderboard_path(self.experiment_id, run_id)})"
        report = f"[Report](#/experiments/{self.experiment_id}/runs/{run_id}/artifacts/{schema.REPORT})"
        return _cut(f"{board} · {report}\n\n{text}".strip(), MAX_TAG)

    def _follow(self) -> Path | None:
        location = self.client.get_experiment(self.experiment_id).artifact_location
        return relocate.follow(sqlite_file(self.uri), location)


def _ms() -> int:
    return time.time_ns() // 1_000_000


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: _cut(value, MAX_TAG) for key, value in tags.items()}


def _params(params: Mapping[str, Any]) -> dict[str, str]:
    return {key: _cut(value, MAX_PARAM) for key, value in params.items()}


def _now() -> str:
    """Milliseconds since the epoch."""
    return str(time.time_ns() // 1_000_000)


def _cut(value: object, limit: int) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _quoted(value: str) -> str:
    """A string in MLflow's filter language, which has two kinds of quotes and no escapes."""
    return f'"{value}"' if "'" in value else f"'{value}'"
