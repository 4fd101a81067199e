"""Weights that nothing needs are deleted; runs, scores, recipes and adapters stay. Others' runs lose nothing."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from lamdagent.config import Config
from lamdagent.evaluation.task import Task
from lamdagent.memory.trial import History, Trial
from lamdagent.tracking import schema
from lamdagent.tracking.queries import OURS
from lamdagent.tracking.registry import registered_names
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.store import RunStore
from lamdagent.tracking.weights import delete_weights, stored_bytes
from lamdagent.weights.retention import RetentionDecision, decide


def decisions(store: RunStore, history: History, tasks: Sequence[Task], config: Config) -> list[RetentionDecision]:
    """`decide` with all that the store knows: the registry, and what other experiments do with our models.

    What the search will test in the end is among the best that stay, however few `retention.keep_best` says.
    """
    keep_best = max(config.retention.keep_best, config.search.test_top)
    found = decide(history, tasks, keep_best, {})
    doubtful = [decision.trial.run_id for decision in found if not decision.kept]
    if not doubtful:
        return found
    registered = {run_id: f"registered as {name}" for run_id, name in registered_names(store, doubtful).items()}
    return decide(history, tasks, keep_best, _used_elsewhere(store) | registered)


def size(store: RunStore, trial: Trial) -> int:
    """Bytes of its weights: as its run says, else as the store lists them."""
    return (trial.model.bytes if trial.model else 0) or stored_bytes(store, trial.run_id)


def prune(store: RunStore, trials: Iterable[Trial]) -> int:
    """Delete the weights of `trials` and say so on their runs; the bytes that were freed.

    Tag first, delete second: a search that is about to start from a model reads the tag, and a model that another
    search has begun to use meanwhile is seen here and stays.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    sizes = {trial.run_id: size(store, trial) for trial in trials}
    for run_id, known in sizes.items():
        store.update(run_id, tags={schema.PRUNED: json.dumps({"at": at, "bytes": known})})
    for run_id in sizes.keys() & _inputs_of_running(store):
        store.update(run_id, tags={schema.PRUNED: ""})
        del sizes[run_id]
    for run_id in sizes:
        delete_weights(store, run_id)
    return sum(sizes.values())


def _used_elsewhere(store: RunStore) -> dict[str, str]:
    """Run id -> why another experiment needs its weights."""
    taken_over = _everywhere(store, f"tags.`{schema.REUSED}` LIKE '_%'")
    found = {record.tags[schema.REUSED]: "a run of another experiment stands on it" for record in taken_over}
    return found | dict.fromkeys(_inputs_of_running(store), "an action that runs now takes it")


def _inputs_of_running(store: RunStore) -> set[str]:
    return {parent for record in _everywhere(store, "attributes.status = 'RUNNING'") for parent in record.parents}


def _everywhere(store: RunStore, where: str) -> list[RunRecord]:
    """Our runs that fit, in all experiments."""
    return store.query(f"{OURS} AND {where}", sys.maxsize, everywhere=True)
