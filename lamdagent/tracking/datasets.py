"""Rows that an action made: from its run's artifact to a local file that is proven by its name."""

import tempfile
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from lamdagent.errors import UserError
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.gathered import ROWS
from lamdagent.objects.rows import fingerprint_of_rows, keep, kept
from lamdagent.text import one_line
from lamdagent.tracking.patch import resolved
from lamdagent.tracking.store import RunStore


def rows_of(store: RunStore, dataset: Dataset) -> Path:
    """The file of its rows in the user's cache, downloaded once.

    Raises:
        UserError: the run has them no more, or other ones.
    """
    there = kept(dataset.fingerprint)
    if there.exists():
        return there
    uri = f"{resolved(dataset.path, store.resolve_run_id)}/{ROWS}"
    with tempfile.TemporaryDirectory() as work:
        try:
            found = download_artifacts(uri, dst_path=work, tracking_uri=store.client.tracking_uri)
        except (MlflowException, OSError) as error:
            said = one_line(error, 120)
            raise UserError(f"The rows of {dataset.name} cannot be had from the run {dataset.run_id}: {said}") from None
        text = Path(found).read_text(encoding="utf-8")
    if fingerprint_of_rows(text) != dataset.fingerprint:
        raise UserError(f"The rows of {dataset.name} in the run {dataset.run_id} are not those that its action made.")
    return keep(text)
