"""An SQLite store and its artifacts that were moved or copied to another folder or machine: addresses follow the files.

MLflow keeps absolute paths of artifacts. They are brought up to date when the folder they name is not there, while the
same folder lies beside the database. MLflow has no call for that, hence SQL.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACTS = "mlruns"
"""Folder beside the database that holds the artifacts."""


def relocate_experiment(client: "MlflowClient", experiment_id: str, file: Path) -> Path | None:
    """As `relocate_artifacts`, for the root of one experiment in the database `file`."""
    return relocate_artifacts(file, client.get_experiment(experiment_id).artifact_location)


def has_moved(location: str, beside: Path) -> bool:
    """Whether `location`, an experiment's root, is not there, while the same folder lies in `beside`."""
    root, here = Path(location or "/"), beside / ARTIFACTS
    return (
        root.parent.name == ARTIFACTS
        and root.parent != here
        and not os.path.exists(root)
        and (here / root.name).is_dir()
    )


def relocate_artifacts(file: Path, location: str, beside: Path | None = None) -> Path | None:
    """Bring all addresses in the database `file` up to date when `location`, an experiment's root, has moved with it.

    Args:
        file: Of SQLite.
        location: As the database has it.
        beside: The folder with the artifacts, when it is not the file's.

    Returns:
        The folder that the addresses named until now; None when nothing was changed.
    """
    root = Path(location)
    here = beside or file.parent
    if not has_moved(location, here):
        return None
    _rewrite(file, f"{root.parent}/", f"{here / ARTIFACTS}/")
    return root.parent.parent


def _rewrite(file: Path, old: str, new: str) -> None:
    """Replace the prefix `old` of every artifact address by `new`, in one transaction."""
    import sqlalchemy
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
    from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlRun

    columns: tuple[Any, ...] = (
        SqlExperiment.artifact_location,
        SqlRun.artifact_uri,
        SqlLoggedModel.artifact_location,
        SqlModelVersion.source,
        SqlModelVersion.storage_location,
    )
    engine = sqlalchemy.create_engine(f"sqlite:///{file}", poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as connection:
        for column in columns:
            fits = sqlalchemy.func.substr(column, 1, len(old)) == old
            value = sqlalchemy.literal(new) + sqlalchemy.func.substr(column, len(old) + 1)
            connection.execute(sqlalchemy.update(column.class_).where(fits).values({column.key: value}))
