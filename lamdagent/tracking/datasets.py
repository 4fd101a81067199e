"""Rows that an action made: from its run's artifact to a local file that is proven by its name."""

import tempfile
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from lamdagent.errors import UserError
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.gathered import ROWS
from lamdagent.objects.reference import ObjectRef
from lamdagent.objects.rows import cached_path, fingerprint_of_rows, store_rows
from lamdagent.text import one_line
from lamdagent.tracking.patch import resolved
from lamdagent.tracking.store import RunStore


def rows_of(store: RunStore, dataset: Dataset) -> Path:
    """The file of its rows in the user's cache, downloaded once.

    Raises:
        UserError: the run has them no more, or other ones.
    """
    return made_rows(store, dataset.ref, dataset.path)


def made_rows(store: RunStore, ref: ObjectRef, path: str) -> Path:
    """The file, in the user's cache, of the rows of a dataset that an action made; `path`: `runs:/...` of its folder.

    Raises:
        UserError: the run has them no more, or other ones.
    """
    there = cached_path(ref.fingerprint)
    if there.exists():
        return there
    uri = f"{resolved(path, store.resolve_run_id)}/{ROWS}"
    with tempfile.TemporaryDirectory() as work:
        try:
            found = download_artifacts(uri, dst_path=work, tracking_uri=store.client.tracking_uri)
        except (MlflowException, OSError) as error:
            said = one_line(error, 120)
            raise UserError(f"The rows of {ref.name} cannot be had from the run {ref.run_id}: {said}") from None
        text = Path(found).read_text(encoding="utf-8")
    if fingerprint_of_rows(text) != ref.fingerprint:
        raise UserError(f"The rows of {ref.name} in the run {ref.run_id} are not those that its action made.")
    return store_rows(text)
