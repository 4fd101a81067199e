"""A patch written to the store. Each step may be repeated after a fault: what is there is asked for or overwritten."""

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
from lamdagent.tracking.leaderboard import save_leaderboard
from lamdagent.tracking.outage import http_retries
from lamdagent.tracking.patch import RunCreation, RunPatch
from lamdagent.tracking.run_info import RunInfo, RunInfoCache

T = TypeVar("T")

MOST_AT_ONCE, MOST_TAGS = 900, 100
"""Points and tags of one request: MLflow takes 1,000 in all, and 100 tags."""
REPOSITORIES = 16
"""Repository objects of MLflow that are kept: more than the runs that are written to in turn."""


def apply_patch(
    client: MlflowClient, experiment_id: str, patch: RunPatch, infos: RunInfoCache, *, again: bool = False
) -> str:
    """Write all of `patch` and return the run's id in the store.

    Args:
        client: Of a store that answered lately.
        experiment_id: Where a new run is opened.
        patch: Without provisional ids but that of the run it opens.
        infos: Runs that need not be asked for again; it is added to.
        again: It may have been tried before: what must not be there twice is asked for first, weights are kept here.

    Raises:
        Exception: whatever MLflow raises; see outage.py. Nothing is lost, and the same call may be made again.
    """
    run_id = patch.run_id
    if patch.new is not None:
        parents = infos.parents(client, patch.new.parents)
        run_id = _opened(client, experiment_id, patch, again, infos, parents)
        patch = patch.renamed(lambda known: run_id if known == patch.run_id else known)
        _write_new(client, experiment_id, run_id, patch, parents)
    _write_artifacts(client, run_id, patch, again, infos)
    model_id = None
    if patch.model or patch.metrics:
        model_id = _model_of(client, run_id, patch, again, infos)
    linked = run_id if model_id else None
    metrics = [Metric(k, float(v), patch.at_ms, patch.step, model_id, run_id=linked) for k, v in patch.metrics.items()]
    metrics += [Metric(key, float(value), at, step) for key, value, step, at in patch.curves]
    _log(client, run_id, metrics, {} if patch.new else patch.tags)
    for traces in chunks(list(patch.traces), 100):
        client.link_traces_to_run(list(traces), run_id)
    if patch.status == "RUNNING":
        client.update_run(run_id, status="RUNNING")
    elif patch.status:
        client.set_terminated(run_id, patch.status, patch.at_ms)
    _drop_repositories()
    return run_id


def find_provisional(client: MlflowClient, experiment_id: str, provisional: str) -> str | None:
    """Id in the store of the run that was opened as `provisional`; None when it is not there."""
    found = client.search_runs([experiment_id], f"tags.`{schema.PROVISIONAL}` = '{provisional}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """`items` in lists of at most `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))


def _opened(
    client: MlflowClient,
    experiment_id: str,
    patch: RunPatch,
    again: bool,
    infos: RunInfoCache,
    parents: Sequence[RunInfo],
) -> str:
    """The run, ours from its first moment: all tags come with its creation."""
    assert patch.new is not None
    if again and (known := find_provisional(client, experiment_id, patch.run_id)):
        return infos.fetch(client, known).run_id
    tags = {key: value for key, value in patch.tags.items() if value} | {schema.PROVISIONAL: patch.run_id}
    if patch.new.text is not None:
        tags[schema.DESCRIPTION] = lineage.describe(parents, patch.new.text)
    with http_retries(0):  # an answer that is lost on its way would make a second run
        run = client.create_run(experiment_id, patch.at_ms, tags, patch.new.name)
    infos.add(run)
    return str(run.info.run_id)


def _write_new(
    client: MlflowClient, experiment_id: str, run_id: str, patch: RunPatch, parents: Sequence[RunInfo]
) -> None:
    assert patch.new is not None
    new: RunCreation = patch.new
    for params in chunks([Param(key, value) for key, value in new.params.items()], 100):
        client.log_batch(run_id, params=params)
    if schema.DESCRIPTION in patch.tags:  # it may hold a link to the run itself
        client.set_tag(run_id, schema.DESCRIPTION, patch.tags[schema.DESCRIPTION])
    lineage.link_parents(client, run_id, parents)
    if new.leaderboard is not None:
        save_leaderboard(client, experiment_id, run_id, new.leaderboard)


def _write_artifacts(client: MlflowClient, run_id: str, patch: RunPatch, again: bool, infos: RunInfoCache) -> None:
    for path, text in patch.texts.items():
        client.log_text(run_id, text, path)
    for path, folder in patch.folders.items():
        weights.open_to_all(Path(folder))
        client.log_artifacts(run_id, folder, path)
    if patch.weights:
        weights.publish(client, infos.fetch(client, run_id).artifact_uri, run_id, Path(patch.weights), keep=again)


def _model_of(client: MlflowClient, run_id: str, patch: RunPatch, again: bool, infos: RunInfoCache) -> str | None:
    """Id of the run's model, which is made if the patch says so."""
    run = infos.fetch(client, run_id, fresh=again)
    if patch.model is None:
        return run.model_id
    with http_retries(0):  # a repeated request would make a second model
        return infos.set_model(run_id, lineage.add_model(client, run, patch.model, again=again))


def _drop_repositories() -> None:
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
