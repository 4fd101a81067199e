"""What one page needs, read with few bounded questions, however many runs the store holds."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from lamdagent.report.document import Document, document
from lamdagent.report.graph import parents_of
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord, is_ours, record_of

Readable = Callable[[list[str]], list[str]]
"""Of experiment ids, those that the reader may see."""

EXPERIMENTS = 1000
"""Experiments whose searches are listed: those changed last."""
SEARCHES = 100
NEWEST = 200
"""Trials of the search that a page shows, newest first."""
BEST = 100
"""Best runs of the experiment that a page shows besides."""
BASES = 20
ANCESTORS = 100
"""Runs that are read only because others descend from them; further ones are named by their ids."""
ELSEWHERE = 20
"""Ancestors in other experiments that are read, one question each."""


@dataclass(frozen=True)
class Listed:
    """One line of the list of searches."""

    record: RunRecord
    experiment: str
    """The experiment's name."""


def searches(client: MlflowClient, readable: Readable) -> list[Listed]:
    """The newest search runs of the experiments that the reader may see, newest first."""
    found = client.search_experiments(ViewType.ACTIVE_ONLY, EXPERIMENTS, order_by=["last_update_time DESC"])
    names = {experiment.experiment_id: experiment.name for experiment in found}
    seen = readable(list(names))
    records = _ask(client, seen, f"tags.`{schema.KIND}` = 'search'", "attributes.start_time DESC", SEARCHES)
    return [Listed(record, names[record.experiment_id]) for record in records]


def search_document(client: MlflowClient, run_id: str, readable: Readable) -> Document | None:
    """The document of a search run; None when there is no such search."""
    search = _get(client, run_id)
    if search is None or search.kind != "search" or search.tags.get(schema.SCHEMA_TAG) != schema.SCHEMA:
        return None
    records = _newest(client, search)
    records += [*_best(client, search.experiment_id, records), *_bases(client, search.experiment_id)]
    curve = [(m.step, m.value) for m in client.get_metric_history(search.run_id, schema.SCORE)]
    return document(search, _with_ancestors(client, search.experiment_id, records, readable), curve)


def _newest(client: MlflowClient, search: RunRecord) -> list[RunRecord]:
    """The newest trials of a search."""
    order = "attributes.start_time DESC"
    # In most experiments the newest runs are this search's, and a question without a tag takes half the time.
    latest = _ask(client, [search.experiment_id], "", order, NEWEST)
    own = [record for record in latest if record.search_run_id == search.run_id]
    if len(own) == NEWEST:
        return own
    return _ask(client, [search.experiment_id], f"tags.`{schema.PARENT_RUN}` = '{search.run_id}'", order, NEWEST)


def _best(client: MlflowClient, experiment_id: str, known: list[RunRecord]) -> list[RunRecord]:
    """The best trials of an experiment. A tenth of those `known` is a bound that spares the store much sorting."""
    scores = sorted(s for record in known if math.isfinite(s := record.metrics.get(schema.SCORE, math.nan)))
    bounds = [f" AND metrics.`{schema.SCORE}` >= {scores[-len(scores) // 10]:.9f}"] if scores else []
    found: list[RunRecord] = []
    for bound in [*bounds, ""]:
        found = _ask(client, [experiment_id], f"status = 'FINISHED'{bound}", f"metrics.`{schema.SCORE}` DESC", BEST)
        if len(found) == BEST:
            break
    return [record for record in found if record.kind in ("base", "action")]


def _bases(client: MlflowClient, experiment_id: str) -> list[RunRecord]:
    """The newest bases of an experiment."""
    return _ask(client, [experiment_id], f"tags.`{schema.KIND}` = 'base'", "attributes.start_time DESC", BASES)


def _with_ancestors(
    client: MlflowClient, experiment_id: str, records: Iterable[RunRecord], readable: Readable
) -> list[RunRecord]:
    """`records` once each, and the runs that they descend from, as far as the reader may see them."""
    known = {record.run_id: record for record in records}
    asked = set(known)
    left = ANCESTORS
    while left > 0:
        parents = {parent for record in known.values() for parent in parents_of(record)}
        # What is no run id was written by somebody else: it never becomes a part of a question.
        missing = sorted(parent for parent in parents - asked if re.fullmatch("[0-9a-zA-Z]{1,64}", parent))[:left]
        if not missing:
            break
        asked |= set(missing)
        left -= len(missing)
        ids = ", ".join(f"'{run_id}'" for run_id in missing)
        near = _ask(client, [experiment_id], f"attributes.run_id IN ({ids})", "attributes.start_time ASC", ANCESTORS)
        far = _elsewhere(client, sorted(set(missing) - {record.run_id for record in near})[:ELSEWHERE], readable)
        known.update((record.run_id, record) for record in [*near, *far])
    return list(known.values())


def _elsewhere(client: MlflowClient, run_ids: Iterable[str], readable: Readable) -> list[RunRecord]:
    """Runs of other experiments, one question each; without those that are gone or that the reader may not see."""
    found = [record for run_id in run_ids if (record := _get(client, run_id))]
    allowed = set(readable([record.experiment_id for record in found]))
    return [record for record in found if record.experiment_id in allowed]


def _get(client: MlflowClient, run_id: str) -> RunRecord | None:
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    return record_of(run) if run.info.lifecycle_stage == "active" else None


def _ask(client: MlflowClient, experiments: list[str], where: str, order: str, most: int) -> list[RunRecord]:
    if not experiments:
        return []
    # Without the tag of our schema in the question, which would make it ten times slower.
    found = client.search_runs(experiments, where, ViewType.ACTIVE_ONLY, most, [order])
    return [record for run in found if is_ours(record := record_of(run))]
