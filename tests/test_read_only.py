"""Commands that only read change no byte of a store and leave no file beside it, whatever MLflow or SQLite would do."""

import hashlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy

from lamdagent.errors import UserError
from lamdagent.tracking.external import open_to_read
from lamdagent.tracking.read_only import schema_of
from lamdagent.tracking.searches import start_search
from lamdagent.tracking.store import RunStore
from tests import forkserver, stores
from tests.searches import lamdagent
from tests.servers import postgresql

OF_2_22 = "0584bdc529eb"
"""The schema of MLflow 2.22's databases."""
READ = ("history", "tracking.experiment=x", "+task=[pico_spell]")


def address(file: Path) -> str:
    return f"sqlite:///{file}"


def sums(folder: Path) -> Mapping[str, str]:
    """Every file in the folder, with a checksum."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def experiments(uri: str) -> list[str]:
    return sorted(sample.name for sample in open_to_read(uri).samples())


def execute(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store with the experiment `x` and one search in it, and nobody who has it open."""
    script = (
        "import sys; from lamdagent.tracking.searches import end_search, start_search\n"
        "from lamdagent.tracking.store import RunStore; store = RunStore(sys.argv[1], 'x')\n"
        "end_search(store, start_search(store, 's', 'a search', {}, ''), 'FINISHED')"
    )
    found = tmp_path / "mlflow.db"
    stores.create(found)
    forkserver.run([sys.executable, "-c", script, address(found)], check=True)
    return found


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A database as MLflow 2.22 left it, with an experiment and a run."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    found = tmp_path / "theirs.db"
    engine = create_engine(address(found))
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = _get_alembic_config(address(found))
        config.attributes["connection"] = connection
        command.upgrade(config, OF_2_22)
    engine.dispose()
    place = tmp_path / "mlruns" / "1"
    execute(
        found,
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage)"
        f" VALUES (1, 'x', '{place}', 'active')",
        "INSERT INTO runs (run_uuid, name, user_id, status, start_time, lifecycle_stage, experiment_id, artifact_uri)"
        f" VALUES ('{'a' * 32}', 'a run', 'they', 'FINISHED', 1, 'active', 1, '{place}/a/artifacts')",
    )
    assert schema_of(address(found)) == "older"
    return found


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_file_that_nobody_uses(file: Path, tmp_path: Path, mode: str) -> None:
    execute(file, f"PRAGMA journal_mode={mode}")
    before = sums(tmp_path)
    code, output = lamdagent(tmp_path, *READ, f"tracking.uri={address(file)}")
    assert code == 0, output
    assert experiments(address(file)) == ["Default", "x"] and sums(tmp_path) == before


def test_what_was_written_since_is_seen(file: Path) -> None:
    assert len(open_to_read(address(file)).newest("1", "", 10)) == 1
    store = RunStore(address(file), "x")
    start_search(store, "t", "another search", {}, "")
    assert len(open_to_read(address(file)).newest("1", "", 10)) == 2


def test_a_file_that_is_in_use(file: Path, tmp_path: Path) -> None:
    store = RunStore(address(file), "x")
    start_search(store, "t", "another search", {}, "")
    assert (tmp_path / "mlflow.db-wal").stat().st_size
    before = {name: sum for name, sum in sums(tmp_path).items() if not name.endswith("-shm")}  # SQLite's locks
    assert len(open_to_read(address(file)).newest("1", "", 10)) == 2
    assert {name: sum for name, sum in sums(tmp_path).items() if not name.endswith("-shm")} == before


def test_reading_in_the_process_that_writes_leaves_its_locks(file: Path, tmp_path: Path) -> None:
    """Whoever closes a file loses all of his process's locks on it, and then another process may write between."""
    store = RunStore(address(file), "x")
    search = start_search(store, "t", "another search", {}, "")
    locked = locks(file)
    assert locked
    for _ in range(2):
        open_to_read(address(file)).newest("1", "", 10)
        RunStore(address(file), "x", look=True).runs()
        RunStore(address(file), "y")
    assert locked <= locks(file)
    script = "import sys; from lamdagent.tracking.store import RunStore; RunStore(sys.argv[1], 'z')"
    forkserver.run([sys.executable, "-c", script, address(file)], check=True)
    store.update(search, metrics={"score": 1.0})
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def locks(file: Path) -> set[str]:
    """Kind and range of this process's locks on the file, as the kernel has them."""
    inode, own = f":{file.stat().st_ino}", str(os.getpid())
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {" ".join(line[1:]) for line in lines if line[4] == own and line[5].endswith(inode)}


def test_a_snapshot_of_a_file_in_use(file: Path, tmp_path: Path) -> None:
    """Taken by a backup, log included, without SQLite's locks."""
    store = RunStore(address(file), "x")
    start_search(store, "t", "another search", {}, "")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{file}{end}", snapshot)
    before = sums(snapshot)
    assert len(open_to_read(address(snapshot / "mlflow.db")).newest("1", "", 10)) == 2 and sums(snapshot) == before


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_file_in_a_folder_that_one_may_not_write(file: Path, tmp_path: Path, mode: str) -> None:
    execute(file, f"PRAGMA journal_mode={mode}")
    shelf = Path(
        "/tmp" if os.getuid() else "/var/tmp", f"lamdagent-shelf-{os.getpid()}"
    )  # whose parents others may enter
    shelf.mkdir()
    try:
        shutil.copy(file, shelf)
        (shelf / "mlflow.db").chmod(0o444)
        shelf.chmod(0o555)
        script = (
            "import os, sys\nif not os.getuid():\n    os.setgid(65534)\n    os.setuid(65534)\n"
            "from lamdagent.tracking.external import open_to_read\n"
            "print(*sorted(sample.name for sample in open_to_read(sys.argv[1]).samples()))"
        )
        command = [sys.executable, "-c", script, address(shelf / "mlflow.db")]
        done = forkserver.run(command, capture_output=True, text=True, cwd="/")
        assert done.stdout.split() == ["Default", "x"], done.stderr
        assert [path.name for path in shelf.iterdir()] == ["mlflow.db"]
    finally:
        shelf.chmod(0o755)
        shutil.rmtree(shelf)


def test_an_older_schema_is_read_from_a_copy_and_searched_by_nobody(older: Path, tmp_path: Path) -> None:
    before = sums(tmp_path)
    (run,) = open_to_read(address(older)).newest("1", "", 10)
    assert (run.name, run.status) == ("a run", "FINISHED")
    code, output = lamdagent(tmp_path, *READ, f"tracking.uri={address(older)}")
    assert code == 0 and "a private copy is upgraded and read" in output, output
    code, output = lamdagent(tmp_path, "+experiment=smoke", "execution=inline", f"tracking.uri={address(older)}")
    assert code == 2 and "has the schema of an older MLflow" in output and "mlflow db upgrade" in output, output
    assert sums(tmp_path) == before and schema_of(address(older)) == "older"


def test_a_newer_schema_is_told(file: Path, tmp_path: Path) -> None:
    execute(file, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = sums(tmp_path)
    for words in (READ, ("+experiment=smoke", "execution=inline")):
        code, output = lamdagent(tmp_path, *words, f"tracking.uri={address(file)}")
        assert code == 2 and "has the schema of a newer MLflow than" in output, output
    assert {name: sums(tmp_path)[name] for name in before} == before


def test_artifacts_that_moved_with_the_file_are_found(file: Path, tmp_path: Path) -> None:
    [run] = open_to_read(address(file)).newest("1", "", 10)
    here = tmp_path / "here"
    here.mkdir()
    shutil.move(file, here)
    shutil.move(tmp_path / "mlruns", here)
    before = sums(here)
    store = RunStore(address(here / "mlflow.db"), "x", look=True)
    [found] = store.runs()
    assert found.run_id == run.run_id and Path(found.artifact_uri).is_relative_to(here)
    assert sums(here) == before


def test_an_empty_file_stays_empty(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(UserError, match="holds no MLflow store"):
        open_to_read(address(tmp_path / "mlflow.db"))
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]


@pytest.mark.slow
def test_a_server_s_database(tmp_path: Path) -> None:
    """Without tables, with its own and with a newer MLflow's; what was not there is not there afterwards."""
    with postgresql(tmp_path / "data") as uri:
        address = uri.replace("postgresql://", "postgresql+psycopg://")

        def tables() -> set[str]:
            with sqlalchemy.create_engine(address).connect() as connection:
                return set(sqlalchemy.inspect(connection).get_table_names())

        with pytest.raises(UserError, match="holds no MLflow store"):
            open_to_read(address)
        assert not tables()
        start_search(RunStore(address, "x"), "s", "a search", {}, "")
        assert experiments(address) == ["Default", "x"]
        with sqlalchemy.create_engine(address).begin() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{OF_2_22}'")
            connection.exec_driver_sql("DROP TABLE trace_tags CASCADE")
        missing = tables()
        for opens in (open_to_read, lambda uri: RunStore(uri, "x")):
            with pytest.raises(UserError, match="older MLflow. Back it up, then run: mlflow db upgrade"):
                opens(address)
        assert tables() == missing


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database at all")
    with pytest.raises(UserError, match="file is not a database"):
        open_to_read(address(tmp_path / "mlflow.db"))
