"""Scores item by item, as an evaluation left them in a run's `samples/`."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from lamdagent.evaluation.gain import Items
from lamdagent.evaluation.task import Split, Task
from lamdagent.tracking.artifact_layout import local_root
from lamdagent.tracking.schema import SAMPLES_FOLDER
from lamdagent.tracking.store import RunStore

FOLDERS = {"search": SAMPLES_FOLDER, "test": f"{SAMPLES_FOLDER}/test"}


def items_of(store: RunStore, run_id: str, split: Split, tasks: Sequence[Task]) -> Items:
    """Task -> item id -> score on the task's own scale; nothing in an outage.

    Without the tasks whose samples are not there or no numbers.

    Raises:
        OSError, ValueError, KeyError: the samples cannot be read.
    """
    return store.connection.attempt(lambda: _items(store.client, run_id, split, tasks)) or {}


def _items(client: MlflowClient, run_id: str, split: Split, tasks: Sequence[Task]) -> Items:
    names = {f"{FOLDERS[split]}/{task.name}.jsonl": task.name for task in tasks}
    root = local_root(client.get_run(run_id).info.artifact_uri)
    if root is not None:
        return {name: dict(_scores(root / path)) for path, name in names.items() if (root / path).is_file()}
    there = {file.path for file in client.list_artifacts(run_id, FOLDERS[split])}
    found = {}
    with tempfile.TemporaryDirectory() as work:
        for path in names.keys() & there:
            uri = client.tracking_uri
            local = download_artifacts(run_id=run_id, artifact_path=path, dst_path=work, tracking_uri=uri)
            found[names[path]] = dict(_scores(Path(local)))
    return found


def _scores(path: Path) -> Iterator[tuple[str, float]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        if isinstance(item["score"], int | float):
            yield str(item["id"]), float(item["score"])
