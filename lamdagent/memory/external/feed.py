"""Runs of others: found, read and kept up to date; a bounded number of them, and never written to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lamdagent.config import SourceConfig
from lamdagent.errors import ConfigError, UserError
from lamdagent.memory.external.context import ParsedRun, SearchContext, is_field_path, value_at
from lamdagent.memory.external.parse import parse_runs
from lamdagent.memory.trial import Trial
from lamdagent.text import one_line
from lamdagent.tracking.external import LoggedModel, StoreReader
from lamdagent.tracking.outage import STORE_FAULTS
from lamdagent.tracking.runs import RunRecord, Weights, is_news
from lamdagent.tracking.schema import MODEL_FOLDER, WEIGHTS

PAGE = 500
"""Runs that the first reading asks for at once."""
NEWEST = 10
"""Runs that a refresh asks for at once; it goes on as long as a page holds something new."""
LOOKS = 5
"""For each model that may join, this many runs are looked into for weights, the best first."""


class Sources:
    """Everything under `memory.sources`."""

    def __init__(self, reader: StoreReader, given: Mapping[str, SourceConfig], own_experiment: str = "") -> None:
        """Find the experiments and prove that the filters are good; `own_experiment` is an id that is no source.

        Raises:
            ConfigError: unknown experiments, this search's own one, and filters that MLflow refuses, all at once.
        """
        faults: list[str] = []
        self._feeds = {name: _Feed(reader, name, source, own_experiment, faults) for name, source in given.items()}
        if faults:
            raise ConfigError(faults)
        self._readings: tuple[Any, dict[str, list[ParsedRun]]] = (None, {})
        self._changed = True

    def refresh(self) -> list[str]:
        """Read what is new; one line for each source that cannot be read now, which keeps what it had."""
        warnings = []
        for name, feed in self._feeds.items():
            try:
                self._changed |= feed.refresh()
            except STORE_FAULTS as error:
                warnings.append(f"memory.sources.{name} cannot be read now: {one_line(error, 200)}")
        return warnings

    def readings(self, ours: SearchContext) -> dict[str, list[ParsedRun]]:
        """Every run known by the last refresh, parsed, by source; parsed anew only when something changed."""
        key = (tuple(ours.models.items()), tuple(ours.base_scores.items()))
        if self._changed or key != self._readings[0]:
            self._readings = (key, {name: feed.readings(ours) for name, feed in self._feeds.items()})
            self._changed = False
        return self._readings[1]

    def trials(self, ours: SearchContext) -> tuple[Trial, ...]:
        """All foreign trials, oldest first."""
        found = [r.trial for readings in self.readings(ours).values() for r in readings if r.trial]
        return tuple(sorted(found, key=lambda t: (t.started, t.run_id)))


class _Feed:
    """The runs and logged models of one source, and what was found of their weights."""

    def __init__(
        self, reader: StoreReader, name: str, source: SourceConfig, own_experiment: str, faults: list[str]
    ) -> None:
        self._reader = reader
        self._name = name
        self._source = source
        self._records: dict[str, RunRecord] = {}
        self._logged: dict[str, tuple[int, str]] = {}
        self._weights: dict[str, Weights] = {}
        self._complete = False
        path = f"memory.sources.{name}"
        try:
            self._experiments = reader.find_experiments(source.experiments, f"{path}.experiments")
        except UserError as error:
            faults.append(str(error))
            return
        if own_experiment in self._experiments:
            faults.append(f"{path}.experiments: this search's own experiment is read anyway; name others")
        if refusal := reader.refusal(self._experiments, source.filter):
            faults.append(f"{path}.filter: MLflow refuses {source.filter!r}: {refusal}")

    def refresh(self) -> bool:
        """Whether anything is new. The first time up to `runs` are read, then the newest until all are known."""
        if not self._complete:
            self._keep_logged(self._reader.model_pages(self._experiments, PAGE))
            self._keep(self._pages("start_time", min(PAGE, self._source.runs)))
            self._complete = True
            return True
        logged = self._keep_logged(self._reader.model_pages(self._experiments, NEWEST))
        started, ended = (self._keep(self._pages(attribute, NEWEST)) for attribute in ("start_time", "end_time"))
        return logged or started or ended

    def readings(self, ours: SearchContext) -> list[ParsedRun]:
        newest = sorted(self._records.values(), key=lambda r: (-r.start_ms, r.run_id))[: self._source.runs]
        first = parse_runs(self._name, self._source, newest, ours, {})
        self._look(newest, first)
        return parse_runs(self._name, self._source, newest, ours, self._weights)

    # Runs --------------------------------------------------------------------------------------------------------

    def _pages(self, attribute: str, size: int) -> Iterator[list[RunRecord]]:
        return self._reader.run_pages(self._experiments, self._source.filter, attribute, size)

    def _keep(self, pages: Iterator[list[RunRecord]]) -> bool:
        """Store runs, page by page, until one holds nothing new or there are enough."""
        before, read = dict(self._records), 0
        for page in pages:
            fresh = [r for r in page if is_news(self._records.get(r.run_id), r)]
            self._records.update((r.run_id, r) for r in fresh)
            for record in fresh:
                self._weights.pop(record.run_id, None)
            read += len(page)
            if not fresh or read >= self._source.runs:
                break
        return before != self._records

    # Weights -----------------------------------------------------------------------------------------------------

    def _keep_logged(self, pages: Iterator[list[LoggedModel | None]]) -> bool:
        """Store the newest finished model of each run; whether there was a new one."""
        before, read = dict(self._logged), 0
        for page in pages:
            for model in filter(None, page):
                made = (model.created_ms, model.model_id)
                if made > self._logged.get(model.run_id, (0, "")):
                    self._logged[model.run_id] = made
                    self._weights.pop(model.run_id, None)
            read += len(page)
            if read >= self._source.runs or before == self._logged:
                break
        return before != self._logged

    def _look(self, newest: Sequence[RunRecord], readings: Sequence[ParsedRun]) -> None:
        """Look for weights: first where the scores are best, then where they are newest."""
        scores = {r.run_id: r.trial.score.value for r in readings if r.trial and r.trial.score}
        ended = [r for r in newest if r.status == "FINISHED"]
        ranked = sorted(ended, key=lambda r: -scores.get(r.run_id, -1.0))
        for record in ranked[: LOOKS * self._source.models]:
            if len([w for w in self._weights.values() if w.location]) >= self._source.models:
                return
            if record.run_id not in self._weights:
                self._weights[record.run_id] = self._weights_of(record)

    def _weights_of(self, record: RunRecord) -> Weights:
        """The first usable weights, or the first adapter, or why there are none."""
        problems: list[Weights] = []
        for uri in self._places(record):
            found = self._reader.inspect(uri)
            if found.location or found.adapter:
                return found
            problems.append(found)
        if folder := self._overwritten(record):
            problems.append(Weights(problem=f"a later run has written into its folder {folder}"))
        return problems[0] if problems else Weights()

    def _places(self, record: RunRecord) -> Iterator[str]:
        if self._source.mapping == "lamdagent":
            yield record.tags.get(WEIGHTS) or f"runs:/{record.run_id}/{MODEL_FOLDER}"
        for path in self._source.weights:
            if path == "logged_model" and record.run_id in self._logged:
                yield f"models:/{self._logged[record.run_id][1]}"
            elif path.startswith("artifacts/"):
                yield f"runs:/{record.run_id}/{path.removeprefix('artifacts/').strip('/')}"
            elif is_field_path(path) and not self._overwritten(record) and (folder := _folder(value_at(record, path))):
                yield folder

    def _overwritten(self, record: RunRecord) -> str:
        """The folder that `record` names and that a later run names, too; empty when there is none."""
        for path in filter(is_field_path, self._source.weights):
            said = value_at(record, path)
            others = (r for r in self._records.values() if r.start_ms > record.start_ms)
            if said and any(value_at(r, path) == said for r in others):
                return one_line(said, 80)
        return ""


def _folder(said: str) -> str:
    """The folder here that a run names, as an absolute path; empty when there is none."""
    from pathlib import Path

    try:
        path = Path(said).expanduser()
        return str(path.absolute()) if said and path.is_dir() else ""
    except (OSError, RuntimeError, ValueError):  # strangers' text: too long, a home that nobody has, a null byte
        return ""
