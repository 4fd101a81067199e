"""Weights that nothing needs are deleted; runs, scores, recipes and adapters stay. Others' runs lose nothing."""

import json
import shutil
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from lamdagent.config import Config
from lamdagent.evaluation.task import Task
from lamdagent.memory.trial import History, Trial
from lamdagent.tracking import schema
from lamdagent.tracking.artifact_layout import local_root
from lamdagent.tracking.queries import OURS
from lamdagent.tracking.runs import RunRecord, record_of
from lamdagent.tracking.store import Store
from lamdagent.tracking.weights import cached_model, stored_bytes
from lamdagent.weights.retention import Verdict, verdicts

PAGE = 500


def judged(store: Store, history: History, tasks: Sequence[Task], config: Config) -> list[Verdict]:
    """`verdicts` with all that the store knows: the registry, and what other experiments do with our models.

    What the search will test in the end is among the best that stay, however few `retention.keep_best` says.
    """
    keep_best = max(config.retention.keep_best, config.search.test_top)
    found = verdicts(history, tasks, keep_best, {})
    doubtful = [v.trial.run_id for v in found if not v.kept]
    if not doubtful:
        return found
    return verdicts(history, tasks, keep_best, _used_elsewhere(store) | _registered(store, doubtful))


def size(store: Store, trial: Trial) -> int:
    """Bytes of its weights: as its run says, else as the store lists them."""
    return (trial.model.bytes if trial.model else 0) or stored_bytes(store.client, trial.run_id)


def prune(store: Store, trials: Iterable[Trial]) -> int:
    """Delete the weights of `trials` and say so on their runs; the bytes that were freed.

    The word comes before the deed: whoever is about to start from a model reads it, and what somebody has begun to use
    meanwhile is seen here and stays.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    sizes = {trial.run_id: size(store, trial) for trial in trials}
    for run_id, known in sizes.items():
        store.set_tags(run_id, {schema.PRUNED: json.dumps({"at": at, "bytes": known})})
    for run_id in sizes.keys() & _inputs_of_running(store):
        store.set_tags(run_id, {schema.PRUNED: ""})
        del sizes[run_id]
    for run_id in sizes:
        delete_weights(store.client, run_id)
    return sum(sizes.values())


def delete_weights(client: MlflowClient, run_id: str) -> None:
    """Delete `model/` of a run that says it is pruned, and this machine's copy; nothing happens where there is none.

    On a local root it goes at once, so that a half-deleted model is never taken for a whole one.
    """
    run = client.get_run(run_id)
    if not run.data.tags.get(schema.PRUNED):
        return
    shutil.rmtree(cached_model(run_id), ignore_errors=True)
    uri = run.info.artifact_uri
    root = local_root(uri)
    if root is None:
        repository = get_artifact_repository(uri, tracking_uri=client.tracking_uri)
        repository.delete_artifacts(schema.MODEL_FOLDER)  # type: ignore[no-untyped-call]
        return
    folder, doomed = root / schema.MODEL_FOLDER, root.parent / "pruned"
    if folder.is_dir():
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _used_elsewhere(store: Store) -> dict[str, str]:
    """Run id -> why another experiment needs its weights."""
    taken_over = _everywhere(store, f"tags.`{schema.REUSED}` LIKE '_%'")
    found = {record.tags[schema.REUSED]: "a run of another experiment stands on it" for record in taken_over}
    return found | dict.fromkeys(_inputs_of_running(store), "an action that runs now takes it")


def _registered(store: Store, run_ids: Collection[str]) -> dict[str, str]:
    """Those of `run_ids` that made a version of a registered model -> its name."""
    found = {}
    for run_id in run_ids:
        if versions := store.client.search_model_versions(f"run_id = '{run_id}'", max_results=1):
            found[run_id] = f"registered as {versions[0].name}"
    return found


def _inputs_of_running(store: Store) -> set[str]:
    return {parent for record in _everywhere(store, "attributes.status = 'RUNNING'") for parent in record.parents}


def _everywhere(store: Store, where: str) -> list[RunRecord]:
    """Our runs that fit, in all experiments."""
    experiments = [experiment.experiment_id for experiment in store.client.search_experiments()]
    found: list[RunRecord] = []
    token = None
    while True:
        page = store.client.search_runs(experiments, f"{OURS} AND {where}", 1, PAGE, page_token=token)
        found += map(record_of, page)
        token = page.token
        if not token:
            return found
