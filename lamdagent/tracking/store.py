"""The store: one experiment of an MLflow tracking store, written and read in this package's words."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from lamdagent.tracking import claims, lineage, moved, schema, weights
from lamdagent.tracking.connect import find_experiment, open_client, resolve_uri, sqlite_file
from lamdagent.tracking.leaderboard import leaderboard_path, save_leaderboard
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.owner import Watch, of_this_host, provably_dead, this_process
from lamdagent.tracking.records import OURS, RunCache, RunRecord, ask, record_of

T = TypeVar("T")

Curve = tuple[str, float, int, int]
"""(metric, value, step, milliseconds since the epoch)."""

MAX_PARAM = 6000
"""Characters that MLflow keeps of a param."""
MAX_TAG = 8000
"""Characters that MLflow keeps of a tag."""
MAX_TRIALS = 10_000
"""Most trials of one search that are counted."""
SILENCE_S = 15 * 60.0
"""A search of another host that gave no sign of life for so long counts as dead; clocks may differ by minutes."""


class Store:
    """Writes and reads one experiment. Holds no active run: many runs may be open at once, in many processes."""

    def __init__(self, uri: str | None, experiment: str) -> None:
        """Open the store at `uri` (None: MLFLOW_TRACKING_URI, then MLflow's default) and find or create `experiment`.

        Raises:
            UserError: the address is wrong, nothing answers there, or the experiment was deleted.
        """
        self.uri = resolve_uri(uri)
        """Absolute: good in every working directory and for every child process."""
        self.client = open_client(self.uri)
        self.experiment = experiment
        self.experiment_id = find_experiment(self.client, experiment, self.uri)
        self.moved_from = self._follow() if self.uri.startswith("sqlite") else None
        """The folder that an SQLite file was in when its artifacts were written, where they have been found again."""
        self._cache = RunCache(self.client, self.experiment_id)
        self._watch = Watch()
        self._artifacts: dict[str, str] = {}

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
        run_id = self._create("search", name, {schema.SEARCH_ID: search_id, schema.ALIVE: _now()}, params)
        save_leaderboard(self.client, self.experiment_id, run_id, tasks)
        self.describe_search(run_id, text)
        self.log_text(run_id, schema.CONFIG, config_yaml)
        return run_id

    def describe_search(self, run_id: str, text: str) -> None:
        """Replace the search run's description, Markdown; links to leaderboard and report come first (the UI folds)."""
        board = f"[Leaderboard]({leaderboard_path(self.experiment_id, run_id)})"
        report = f"[Report](#/experiments/{self.experiment_id}/runs/{run_id}/artifacts/{schema.REPORT})"
        self.set_tags(run_id, {schema.DESCRIPTION: f"{board} · {report}\n\n{text}".strip()})

    def find_search(self, search_id: str) -> RunRecord | None:
        """The newest search run of that id, in whatever state."""
        where = f"{OURS} AND tags.`{schema.KIND}` = 'search' AND tags.`{schema.SEARCH_ID}` = {_quoted(search_id)}"
        found = self.client.search_runs([self.experiment_id], where, 1, 1, ["attributes.start_time DESC"])
        return record_of(found[0]) if found else None

    def reopen_search(self, run_id: str) -> None:
        """Make this process the owner of a search run that ended or was left behind; it is RUNNING again."""
        owner = {schema.OWNER: this_process().dump(), schema.ALIVE: _now(), schema.STATUS_REASON: ""}
        self.set_tags(run_id, owner)
        self.client.update_run(run_id, status="RUNNING")

    def sign_of_life(self, run_id: str) -> None:
        """Tell other hosts that the search still runs."""
        self.set_tags(run_id, {schema.ALIVE: _now()})

    def trials_of(self, search_run_id: str) -> list[RunRecord]:
        """The base and action runs of one search, newest first."""
        where = f"tags.`{schema.PARENT_RUN}` = '{search_run_id}'"
        return ask(self.client, self.experiment_id, where, MAX_TRIALS, "attributes.start_time DESC")

    def end_search(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"], reason: str = "") -> None:
        """Close the search run; `reason` says why it did not finish."""
        if reason:
            self.set_tags(run_id, {schema.STATUS_REASON: reason})
        self._end(run_id, status)

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
        runs = {run_id: run for run_id in dict.fromkeys(parents) if (run := self._found(run_id))}
        ours = {
            schema.PARENT_RUN: search_run_id,
            schema.PARENTS: json.dumps(list(parents)),
            schema.DESCRIPTION: lineage.describe(list(runs.values()), text),
        }
        run_id = self._create(kind, name, {**tags, **ours}, params)
        lineage.link_parents(self.client, run_id, list(runs.values()))
        return run_id

    def claim(self, run_id: str) -> bool:
        """Whether the run, started with the tag CLAIM = ASKED, may do its work; if not, it is deleted again.

        False when another process does the same or has done it; that run is among the `runs` from the next call on.
        """
        winner = claims.settle(self.client, record_of(self.client.get_run(run_id)), self.deserted)
        if winner == run_id:
            return True
        self._end(run_id, "KILLED")
        self.client.delete_run(run_id)
        self._cache.touch(winner)
        return False

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
        for path, text in (texts or {}).items():
            self.log_text(run_id, path, text)
        for path, folder in (folders or {}).items():
            weights.open_to_all(folder)
            self.client.log_artifacts(run_id, str(folder), path)
        if staging is not None:
            weights.publish(self.client, run_id, staging)
        model_id = lineage.add_model(self.client, self.client.get_run(run_id), model) if model else None
        self._log_curves(run_id, curves)
        self._log_metrics(run_id, metrics, 0, model_id)
        self.set_tags(run_id, tags or {})
        self._end(run_id, "FINISHED")

    def fail_run(self, run_id: str, reason: str, details: str = "", kind: str = "error") -> None:
        """Close the run as FAILED with a reason for people; `details` (a traceback) becomes an artifact."""
        if details:
            self.log_text(run_id, schema.FAILURE, details)
        self.set_tags(run_id, {schema.STATUS_REASON: reason, schema.FAILURE_KIND: kind})
        self._end(run_id, "FAILED")

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Add metrics, also to a finished run (test scores); they are shown on its model too."""
        self._log_metrics(run_id, metrics, step, lineage.model_id_of(self.client.get_run(run_id)))

    def log_text(self, run_id: str, path: str, text: str) -> None:
        """Write a text artifact; an older one at `path` is replaced."""
        self.client.log_text(run_id, text, path)

    def log_folder(self, run_id: str, path: str, folder: Path) -> None:
        """Write the files of `folder` into the artifact folder `path`; older ones of the same names are replaced."""
        self.client.log_artifacts(run_id, str(folder), path)

    def log_dict(self, run_id: str, path: str, value: Mapping[str, Any]) -> None:
        """Write `value` as JSON or YAML, as the ending of `path` says."""
        self.client.log_dict(run_id, dict(value), path)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, cut to what MLflow keeps."""
        self._cache.touch(run_id)
        for some in _chunks([RunTag(key, _cut(value, MAX_TAG)) for key, value in tags.items()], 100):
            self.client.log_batch(run_id, tags=some)

    # Weights and traces ------------------------------------------------------------------------------------------

    def artifact_uri(self, run_id: str) -> str:
        """Where the run's artifacts are; asked once, since it never changes."""
        if run_id not in self._artifacts:
            self._artifacts[run_id] = str(self.client.get_run(run_id).info.artifact_uri)
        return self._artifacts[run_id]

    def model_folder(self, run_id: str) -> Path:
        """Local folder of the run's weights, see `weights.model_folder`."""
        return weights.model_folder(self.client, run_id)

    def folder(self, uri: str) -> Path:
        """Local folder of `runs:/...` or `models:/...`, others' too, see `weights.download_model`."""
        return weights.fetch(self.client, uri)

    def link_traces(self, trace_ids: Sequence[str], run_id: str) -> None:
        """Show the traces of a decision on the run that it decided."""
        for some in _chunks(list(trace_ids), 100):
            self.client.link_traces_to_run(list(some), run_id)

    # Reading -----------------------------------------------------------------------------------------------------

    def runs(self) -> list[RunRecord]:
        """Our runs of this experiment, oldest first, other processes' too; milliseconds after the first call.

        Without those that have not settled yet who does their work.
        """
        return [record for record in self._cache.refresh() if not claims.undecided(record)]

    def resync(self) -> list[RunRecord]:
        """Like `runs`, but read anew: sees what others edited or deleted in finished runs."""
        self._cache.clear()
        return self.runs()

    def by_fingerprint(self, fingerprint: str, tasks: str = "") -> RunRecord | None:
        """The newest FINISHED run of `fingerprint` in any experiment; `tasks`: only with this value of the tag.

        One of this experiment is among the `runs` from the next call on, however little it tells.
        """
        known = self._cache.finished(fingerprint)
        if known and tasks in ("", known.tags.get(schema.TASKS)):
            return known
        where = f"{OURS} AND status = 'FINISHED' AND tags.`{schema.FINGERPRINT}` = {_quoted(fingerprint)}"
        where += f" AND tags.`{schema.TASKS}` = {_quoted(tasks)}" if tasks else ""
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        runs = self.client.search_runs(experiments, where, 1, 1, ["attributes.start_time DESC"])
        found = record_of(runs[0]) if runs else None
        if found and found.experiment_id == self.experiment_id:
            self._cache.touch(found.run_id)
        return found

    def close_orphans(self) -> list[str]:
        """Close as FAILED what dead processes left RUNNING, and return the ids. Asks nothing where all are ours."""
        mine = this_process().dump()
        running = [r for r in self._cache.running() if r.tags.get(schema.OWNER) != mine]
        # Read again: it may have ended, or yielded, just before its process did.
        now = [self._cache.reread(run.run_id) for run in running if self.deserted(run)]
        orphans = [run.run_id for run in now if run and run.status == "RUNNING"]
        for run_id in orphans:
            self.fail_run(run_id, "The process that ran it is gone (killed, or the machine restarted).", kind="orphan")
        return orphans

    def close_own(self, search_run_id: str, reason: str) -> list[str]:
        """Close as FAILED what this process has left RUNNING under a search, wherever it was cut off; the ids."""
        where = f"attributes.status = 'RUNNING' AND tags.`{schema.PARENT_RUN}` = '{search_run_id}'"
        found = ask(self.client, self.experiment_id, where, MAX_TRIALS, "attributes.start_time DESC")
        own = [run.run_id for run in found if run.tags.get(schema.OWNER) == this_process().dump()]
        for run_id in own:
            self.fail_run(run_id, reason, kind="interrupted")
        return own

    def deserted(self, record: RunRecord) -> bool:
        """Whether the process behind a RUNNING run is gone: provably on this host, by its silence on another."""
        owner = record.tags.get(schema.OWNER, "")
        if provably_dead(owner) or of_this_host(owner):
            return provably_dead(owner)
        search = record_of(self.client.get_run(record.search_run_id or record.run_id))
        seen = int(search.tags.get(schema.ALIVE) or search.start_ms)
        return self._watch.silent_s(search.run_id, seen) > SILENCE_S

    # Inside ------------------------------------------------------------------------------------------------------

    def _create(self, kind: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        """A RUNNING run that is ours from its first moment: all tags come with its creation."""
        ours = {schema.SCHEMA_TAG: schema.SCHEMA, schema.KIND: kind, schema.OWNER: this_process().dump()}
        every = {key: _cut(value, MAX_TAG) for key, value in {**tags, **ours}.items() if value}
        run: Run = self.client.create_run(self.experiment_id, tags=every, run_name=name)
        run_id = str(run.info.run_id)
        for some in _chunks([Param(key, _cut(value, MAX_PARAM)) for key, value in params.items()], 100):
            self.client.log_batch(run_id, params=some)
        self._cache.touch(run_id)
        return run_id

    def _follow(self) -> Path | None:
        location = self.client.get_experiment(self.experiment_id).artifact_location
        return moved.follow(sqlite_file(self.uri), location)

    def _found(self, run_id: str) -> Run | None:
        """The run; None when its owner has purged it, which is no reason for us to stop."""
        try:
            return self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int, model_id: str | None) -> None:
        now = time.time_ns() // 1_000_000
        self._cache.touch(run_id)
        self._log_batches(
            run_id,
            [
                Metric(key, float(value), now, step, model_id=model_id, run_id=run_id if model_id else None)
                for key, value in metrics.items()
            ],
        )

    def _log_curves(self, run_id: str, curves: Sequence[Curve]) -> None:
        self._log_batches(run_id, [Metric(key, float(value), at, step) for key, value, step, at in curves])

    def _log_batches(self, run_id: str, metrics: list[Metric]) -> None:
        """Points that are no number are left out: they would spoil every plot and sort."""
        for some in _chunks([metric for metric in metrics if math.isfinite(metric.value)], 1000):
            self.client.log_batch(run_id, metrics=some)

    def _end(self, run_id: str, status: str) -> None:
        self.client.set_terminated(run_id, status)
        self._cache.touch(run_id)


def _now() -> str:
    """Milliseconds since the epoch."""
    return str(time.time_ns() // 1_000_000)


def _cut(value: object, limit: int) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _quoted(value: str) -> str:
    """A string in MLflow's filter language, which has two kinds of quotes and no escapes."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def _chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))
