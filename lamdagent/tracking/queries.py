"""Bounded questions to the store: the best, the newest, the failed, the running, never all."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from lamdagent.libraries import uncollected
from lamdagent.tracking.runs import RunRecord, is_ours, record_of
from lamdagent.tracking.schema import (
    KIND,
    SCHEMA,
    SCHEMA_TAG,
    SCORE,
)

if TYPE_CHECKING:  # a plan needs records, but no MLflow, whose import takes seconds
    from mlflow import MlflowClient

OURS = f"tags.`{SCHEMA_TAG}` = '{SCHEMA}'"
"""Filter for runs that this package wrote."""


BEST, NEWEST, FAILED, BASES = 300, 500, 100, 100
"""Runs of each sort in a working set: of an experiment of up to `NEWEST` runs, that is all of them."""
ANCESTORS = 500
"""Most ancestors that are read besides."""
PAGE = 500
"""Runs asked for at once; the time per run does not depend on it."""
EXPERIMENTS_S = 60.0
"""Seconds for which a list of all experiments is good: a new one has hardly anything in it."""
NEWEST_FIRST = "attributes.start_time DESC"
"""Order of MLflow's answers."""


def working_set(
    client: "MlflowClient", experiment_id: str, *, best: int = BEST, newest: int = NEWEST, failed: int = FAILED
) -> list[RunRecord]:
    """The runs of ours that a search needs to know, oldest first: of an experiment of up to `newest` runs, all.

    Of a larger one they are the newest, the best actions by the logged score, the latest failures, the bases, all that
    is running, and the ancestors of all these within the experiment. The time hardly depends on the experiment's size.
    """
    asked = partial(ask, client, experiment_id)
    with uncollected():  # it would walk the ORM's objects: off, a scan takes 2.6 times less
        found = asked("", newest, NEWEST_FIRST)
        if len(found) >= newest:
            kind = f"tags.`{KIND}` = "
            found += asked(f"{kind}'action'", best, f"metrics.{SCORE} DESC")
            found += asked("attributes.status = 'FAILED'", failed, NEWEST_FIRST)
            found += asked("attributes.status = 'RUNNING'", newest, NEWEST_FIRST)
            found += asked(f"{kind}'base'", BASES, NEWEST_FIRST)
            found += _ancestors(asked, found)
    return in_order(record for record in found if is_ours(record))


def within_working_set(runs: Mapping[str, RunRecord]) -> list[RunRecord]:
    """Records of `runs` that `working_set` would read."""
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


def ask(client: "MlflowClient", experiments: str | Sequence[str], where: str, most: int, order: str) -> list[RunRecord]:
    """The first `most` runs of anyone that fit a filter, in MLflow's order, such as `NEWEST_FIRST`.

    Pages are offsets, so a run that others add meanwhile may repeat one.
    """
    size = min(PAGE, most)
    ids = [experiments] if isinstance(experiments, str) else list(experiments)
    found = pages(lambda token: client.search_runs(ids, where, 1, size, [order], token))
    return [record_of(run) for run in islice(chain.from_iterable(found), most)]


def active_experiments(client: "MlflowClient") -> list[str]:
    """Ids of the experiments that are not deleted."""
    return [str(experiment.experiment_id) for experiment in client.search_experiments()]


class Experiments:
    """The active experiments of a store, asked for at most every `EXPERIMENTS_S`."""

    def __init__(self, client: "MlflowClient") -> None:
        """Nothing has been asked yet."""
        self._client = client
        self._ids: list[str] = []
        self._asked = -math.inf

    def ids(self) -> list[str]:
        """Their ids."""
        if time.monotonic() - self._asked > EXPERIMENTS_S:
            self._ids = active_experiments(self._client)
            self._asked = time.monotonic()
        return self._ids


def quoted(value: str) -> str:
    """A string in MLflow's filter language, which has two kinds of quotes and no escapes."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """The pages of one of MLflow's searches, each asked for when it is wanted; `search` takes the page's token."""
    token = None
    while True:
        page = search(token)
        yield page
        token = page.token
        if not token:
            return


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
        latest = [r for some in range(0, len(wanted), 100) for r in by_id(asked, wanted[some : some + 100])]
        found += latest
    return found


def by_id(asked: "partial[list[RunRecord]]", run_ids: Sequence[str]) -> list[RunRecord]:
    """The runs of these ids; ids that cannot be ids are left out."""
    plain = [run_id for run_id in run_ids if run_id.isalnum()]  # they come from a tag
    listed = ", ".join(f"'{run_id}'" for run_id in plain)
    return asked(f"attributes.run_id IN ({listed})", len(plain), NEWEST_FIRST) if plain else []


def in_order(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The records once each, oldest first."""
    unique = {record.run_id: record for record in records}
    return sorted(unique.values(), key=lambda record: (record.start_ms, record.run_id))
