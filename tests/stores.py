"""SQLite stores as MLflow leaves them: creating their tables takes seconds, so all stores are copies of one."""

import contextlib
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from mlflow import MlflowClient

from lamdagent.tracking import connect
from lamdagent.tracking.read_only import sqlite_file


def create(file: Path) -> None:
    """An empty store in `file`, unless something is there."""
    if file.exists() or not file.parent.is_dir():
        return
    made_in = _empty()
    shutil.copy(made_in / "mlflow.db", file)
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        place = "artifact_location"  # of the experiment that every store has; else the store would seem to have moved
        database.execute(f"UPDATE experiments SET {place} = replace({place}, ?, ?)", (str(made_in), str(file.parent)))


@contextlib.contextmanager
def created() -> Iterator[None]:
    """In here the product finds such a store where it would have MLflow create one."""
    probe = connect.probe_database

    def probed(uri: str) -> None:
        if uri.startswith("sqlite"):
            create(sqlite_file(uri))
        probe(uri)

    with patch.object(connect, "probe_database", probed):
        yield


@functools.cache
def _empty() -> Path:
    folder = Path(tempfile.mkdtemp())
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
    return folder
