"""Read access to any run of a store, in plain values; nothing is written."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException

from lamdagent.errors import UserError
from lamdagent.text import one_line
from lamdagent.tracking.artifact_layout import inspect
from lamdagent.tracking.connect import open_to_look, resolve_uri
from lamdagent.tracking.queries import NEWEST_FIRST, ask, pages
from lamdagent.tracking.read_only import sqlite_file
from lamdagent.tracking.runs import RunRecord, Weights, record_of
from lamdagent.tracking.store import RunStore

SAMPLE, SAMPLED = 200, 30
"""Runs of an experiment, and experiments, that an overview reads."""


@dataclass(frozen=True)
class LoggedModel:
    """A finished LoggedModel."""

    run_id: str
    """The run that made it."""
    model_id: str
    created_ms: int
    """Since the epoch."""


@dataclass(frozen=True)
class Sample:
    """The newest runs of an experiment."""

    experiment_id: str
    name: str
    records: tuple[RunRecord, ...]
    more: bool
    """Whether there are older ones."""
    logged: bool
    """Whether it holds logged models."""


class StoreReader:
    """Asks a store about runs of anyone, in any experiment. Each method may raise `STORE_FAULTS`, see outage.py."""

    def __init__(self, client: MlflowClient) -> None:
        """Nothing is asked yet."""
        self._client = client

    def experiment_id(self, name: str) -> str:
        """Id of the experiment `name`; empty when there is none."""
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id) if found else ""

    def experiment_of(self, run_id: str) -> str:
        """Name of the experiment of a run.

        Raises:
            UserError: there is no such run.
        """
        try:
            found = self._client.get_run(run_id).info.experiment_id
        except MlflowException as error:
            said = f"There is no run {one_line(run_id, 60)} in the store ({one_line(error, 120)})"
            raise UserError(said) from None
        return str(self._client.get_experiment(found).name)

    def find_experiments(self, wanted: Sequence[Any], path: str) -> list[str]:
        """Ids of active experiments, by name or id; `path`: the configuration key, for the message.

        Raises:
            UserError: with the close names for one that is not there.
        """
        found = []
        for given in map(str, wanted):
            experiment = self._client.get_experiment_by_name(given) or self._by_id(given)
            if experiment is None or experiment.lifecycle_stage != "active":
                known = [e.name for e in self._client.search_experiments(max_results=1000)]
                near = difflib.get_close_matches(given, known, 3) or known[:10]
                hint = f"did you mean one of {', '.join(near)}" if near else "the store has none"
                raise UserError(f"{path}: there is no experiment {given!r} in the store; {hint}")
            found.append(str(experiment.experiment_id))
        return found

    def refusal(self, experiments: Sequence[str], where: str) -> str:
        """Why MLflow refuses the filter `where`; empty when it takes it."""
        try:
            self._client.search_runs(list(experiments), where, 1, 1)
        except MlflowException as error:
            return one_line(error, 200)
        return ""

    def newest(self, experiment_id: str, where: str, most: int) -> list[RunRecord]:
        """The newest runs of an experiment that fit the filter `where`, at most `most`."""
        return ask(self._client, experiment_id, where, most, NEWEST_FIRST)

    def run_pages(self, experiments: Sequence[str], where: str, attribute: str, size: int) -> Iterator[list[RunRecord]]:
        """Runs that fit the filter `where`, the latest `attribute` (such as `start_time`) first, `size` at once."""
        order = [f"attributes.{attribute} DESC"]
        found = pages(lambda token: self._client.search_runs(list(experiments), where, 1, size, order, token))
        return ([record_of(run) for run in page] for page in found)

    def model_pages(self, experiments: Sequence[str], size: int) -> Iterator[list[LoggedModel | None]]:
        """LoggedModels, the newest first, `size` at once; None for those that are not finished."""
        order = [{"field_name": "creation_timestamp", "ascending": False}]
        search = self._client.search_logged_models
        found = pages(lambda token: search(list(experiments), None, None, size, order, token))
        return ([_version(model) for model in page] for page in found)

    def inspect(self, uri: str) -> Weights:
        """Description of the weights at `uri`, without loading them."""
        return inspect(self._client, uri)

    def samples(self) -> list[Sample]:
        """The newest runs of the active experiments, the latest used first."""
        found = []
        for experiment in self._client.search_experiments(order_by=["last_update_time DESC"], max_results=SAMPLED):
            page = self._client.search_runs([experiment.experiment_id], "", 1, SAMPLE, [NEWEST_FIRST])
            logged = self._client.search_logged_models([experiment.experiment_id], max_results=1)
            records = tuple(record_of(run) for run in page)
            found.append(Sample(experiment.experiment_id, experiment.name, records, bool(page.token), bool(logged)))
        return found

    def _by_id(self, given: str) -> Any:
        try:
            return self._client.get_experiment(given) if given.isdigit() else None
        except MlflowException:
            return None


def open_to_read(uri: str | None) -> StoreReader:
    """A reader of a store that exists; unlike `RunStore` it makes none.

    Raises:
        UserError: there is no store.
    """
    resolved = resolve_uri(uri)
    if resolved.startswith("sqlite") and not sqlite_file(resolved).is_file():
        raise UserError(f"tracking.uri: there is no store at {resolved}; name another one with tracking.uri=...")
    return StoreReader(open_to_look(resolved))


def reader_of(store: RunStore) -> StoreReader:
    """A reader of the store that is open already."""
    return StoreReader(store.client)


def _version(model: Any) -> LoggedModel | None:
    finished = model.status == LoggedModelStatus.READY
    return LoggedModel(model.source_run_id, str(model.model_id), model.creation_timestamp) if finished else None
