"""The indexes that MLflow lacks are there and used, whoever opens the database first: a search or the server."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from mlflow import MlflowClient

from lamdagent.tracking.connect import open_to_look
from lamdagent.tracking.indexes import INDEXES, ensure_indexes
from lamdagent.tracking.store import RunStore
from tests import stores
from tests.servers import postgresql, server

NAMES = {index.split()[0] for index in INDEXES}


def of_sqlite(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}


def test_a_search_makes_them_in_its_file(tmp_path: Path) -> None:
    RunStore(f"sqlite:///{tmp_path}/mlflow.db", "x")
    assert of_sqlite(tmp_path / "mlflow.db") >= NAMES
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        asked = "SELECT * FROM tags WHERE key = 'lamdagent.fingerprint' AND value = 'x'"
        plan = str(database.execute(f"EXPLAIN QUERY PLAN {asked}").fetchall())
    assert "lamdagent_fingerprints" in plan


def test_the_server_makes_them_in_its_own(tmp_path: Path) -> None:
    with server(tmp_path) as address:
        RunStore(address, "x")
        assert of_sqlite(tmp_path / "mlflow.db") >= NAMES


def test_a_file_that_is_not_a_store_yet_is_left_alone(tmp_path: Path) -> None:
    assert not ensure_indexes(f"sqlite:///{tmp_path}/empty.db")
    assert not of_sqlite(tmp_path / "empty.db")


def test_a_store_that_is_only_read_gets_none(tmp_path: Path) -> None:
    stores.create(tmp_path / "theirs.db")
    open_to_look(f"sqlite:///{tmp_path}/theirs.db").search_experiments()
    assert of_sqlite(tmp_path / "theirs.db") and not of_sqlite(tmp_path / "theirs.db") & NAMES


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgresql(tmp_path_factory.mktemp("postgresql")) as uri:
        yield uri.replace("postgresql://", "postgresql+psycopg://")


def of_postgresql(database: str) -> set[str]:
    with sqlalchemy.create_engine(database).connect() as connection:
        return set(connection.exec_driver_sql("SELECT indexname FROM pg_indexes").scalars())


@pytest.mark.slow
def test_a_search_makes_them_in_postgresql_and_a_reader_does_not(database: str) -> None:
    MlflowClient(database, database).search_experiments()  # makes the tables
    open_to_look(database).search_experiments()
    assert of_postgresql(database) and not of_postgresql(database) & NAMES
    RunStore(database, "x")
    assert of_postgresql(database) >= NAMES


@pytest.mark.slow
def test_who_may_not_goes_on_without(database: str) -> None:
    RunStore(database, "x")
    with sqlalchemy.create_engine(database).begin() as connection:
        for name in NAMES:
            connection.exec_driver_sql(f"DROP INDEX {name}")
        connection.exec_driver_sql("CREATE ROLE reader LOGIN")
        connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    reader = sqlalchemy.make_url(database).set(username="reader").render_as_string(hide_password=False)
    assert not ensure_indexes(reader)
    assert not of_postgresql(database) & NAMES
