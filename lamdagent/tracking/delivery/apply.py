"""A change -> the store. Every step may be repeated after a fault: what is there is asked for or overwritten."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking._tracking_service import utils

from lamdagent.tracking import lineage, schema, weights
from lamdagent.tracking.delivery.patch import Change, New
from lamdagent.tracking.leaderboard import save_leaderboard
from lamdagent.tracking.outage import patience
from lamdagent.tracking.run_info import Acquaintance, Met

T = TypeVar("T")

MOST_AT_ONCE, MOST_TAGS = 900, 100
"""Points and tags of one request: MLflow takes 1,000 in all, and so many tags."""
REPOSITORIES = 16
"""So many of MLflow's repository objects are kept: more than the runs that are written to in turn."""


def deliver(
    client: MlflowClient, experiment_id: str, change: Change, *, again: bool = False, met: Met | None = None
) -> str:
    """Write all of `change` and return the run's id in the store.

    Args:
        client: Of a store that answered lately.
        experiment_id: Where a new run is opened.
        change: Without provisional ids but that of the run it opens.
        again: It may have been tried before: what must not be there twice is asked for first, weights are kept here.
        met: Runs that need not be asked for again; it is added to.

    Raises:
        Exception: whatever MLflow raises; see outage.py. Nothing is lost, and the same call may be made again.
    """
    met = Met() if met is None else met
    run_id = change.run_id
    if change.new is not None:
        parents = met.parents(client, change.new.parents)
        run_id = _opened(client, experiment_id, change, again, met, parents)
        change = change.renamed(lambda known: run_id if known == change.run_id else known)
        _write_new(client, experiment_id, run_id, change, parents)
    _write_artifacts(client, run_id, change, again, met)
    model_id = None
    if change.model or change.metrics:
        model_id = _model_of(client, run_id, change, again, met)
    linked = run_id if model_id else None
    metrics = [
        Metric(k, float(v), change.at_ms, change.step, model_id, run_id=linked) for k, v in change.metrics.items()
    ]
    metrics += [Metric(key, float(value), at, step) for key, value, step, at in change.curves]
    _log(client, run_id, metrics, {} if change.new else change.tags)
    for traces in chunks(list(change.traces), 100):
        client.link_traces_to_run(list(traces), run_id)
    if change.status == "RUNNING":
        client.update_run(run_id, status="RUNNING")
    elif change.status:
        client.set_terminated(run_id, change.status, change.at_ms)
    _let_go_of_repositories()
    return run_id


def find_provisional(client: MlflowClient, experiment_id: str, provisional: str) -> str | None:
    """Id in the store of the run that was opened as `provisional`; None when it is not there."""
    found = client.search_runs([experiment_id], f"tags.`{schema.PROVISIONAL}` = '{provisional}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """`items` in lists of at most `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))


def _opened(
    client: MlflowClient, experiment_id: str, change: Change, again: bool, met: Met, parents: Sequence[Acquaintance]
) -> str:
    """The run, ours from its first moment: all tags come with its creation."""
    assert change.new is not None
    if again and (known := find_provisional(client, experiment_id, change.run_id)):
        return met.of(client, known).run_id
    tags = {key: value for key, value in change.tags.items() if value} | {schema.PROVISIONAL: change.run_id}
    if change.new.text is not None:
        tags[schema.DESCRIPTION] = lineage.describe(parents, change.new.text)
    with patience(0):  # an answer that is lost on its way would make a second run
        run = client.create_run(experiment_id, change.at_ms, tags, change.new.name)
    met.add(run)
    return str(run.info.run_id)


def _write_new(
    client: MlflowClient, experiment_id: str, run_id: str, change: Change, parents: Sequence[Acquaintance]
) -> None:
    assert change.new is not None
    new: New = change.new
    for params in chunks([Param(key, value) for key, value in new.params.items()], 100):
        client.log_batch(run_id, params=params)
    if schema.DESCRIPTION in change.tags:  # it may hold a link to the run itself
        client.set_tag(run_id, schema.DESCRIPTION, change.tags[schema.DESCRIPTION])
    lineage.link_parents(client, run_id, parents)
    if new.leaderboard is not None:
        save_leaderboard(client, experiment_id, run_id, new.leaderboard)


def _write_artifacts(client: MlflowClient, run_id: str, change: Change, again: bool, met: Met) -> None:
    for path, text in change.texts.items():
        client.log_text(run_id, text, path)
    for path, folder in change.folders.items():
        weights.open_to_all(Path(folder))
        client.log_artifacts(run_id, folder, path)
    if change.weights:
        weights.publish(client, met.of(client, run_id).artifact_uri, run_id, Path(change.weights), keep=again)


def _model_of(client: MlflowClient, run_id: str, change: Change, again: bool, met: Met) -> str | None:
    """Id of the run's model, which is made if the change says so."""
    run = met.of(client, run_id, anew=again)
    if change.model is None:
        return run.model_id
    with patience(0):  # a repeated request would make a second model
        return met.made(run_id, lineage.add_model(client, run, change.model, again=again))


def _let_go_of_repositories() -> None:
    """MLflow keeps a repository object with a thread pool for each of the last 1,024 runs: 8 kB a run."""
    kept = getattr(utils, "_artifact_repos_cache", None)
    while isinstance(kept, OrderedDict) and len(kept) > REPOSITORIES:
        kept.popitem(last=False)


def _log(client: MlflowClient, run_id: str, metrics: Sequence[Metric], tags: Mapping[str, str]) -> None:
    """Points that are no number are left out: they would spoil every plot and sort."""
    some = list(chunks([metric for metric in metrics if math.isfinite(metric.value)], MOST_AT_ONCE))
    told = list(chunks([RunTag(key, value) for key, value in tags.items()], MOST_TAGS))
    for points, words in zip_longest(some, told, fillvalue=()):
        client.log_batch(run_id, metrics=points, tags=words)
