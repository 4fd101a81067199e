"""Databases that are only read: no byte of them changes, no file appears beside them, no table is migrated.

MLflow's client migrates a database that lacks a table as soon as it opens it, and SQLite makes files beside one that
has a write-ahead log. So the schema is looked at first, SQLite files are opened in a way that forbids any change, and
where that cannot do, a private copy is read instead, which is gone with this process.

A process that opens and closes a file loses all of its locks on it, those of SQLite's connections too, and the next
write destroys the database (https://www.sqlite.org/howtocorrupt.html, 2.2). So a file that may be in use here is never
closed, only left to SQLite, or copied by another process. For the same reason none is opened as `immutable`.
"""

import atexit
import logging
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Container, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from urllib.parse import quote

from lamdagent.errors import UserError
from lamdagent.text import hide_passwords, one_line
from lamdagent.tracking.relocate import has_moved, relocate_artifacts

log = logging.getLogger(__name__)

SIGNATURE = b"SQLite format 3\0"
WRITE_AHEAD = 2
"""Byte 18 of an SQLite file whose writers keep a write-ahead log (https://www.sqlite.org/fileformat.html, 1.3)."""
PROBE_TIMEOUT_S = 5
"""How long a database may stay silent before its address counts as wrong."""
SETTLED_S, CREATED_S = 1.0, 20.0
"""A schema that has not changed for so long is not being upgraded; one without a name, not being created."""
OLDER = "has the schema of an older MLflow. Back it up, then run: mlflow db upgrade <address>"


def readable(uri: str) -> str:
    """The address at which MLflow reads the database at the absolute `uri` without changing it.

    Raises:
        UserError: it cannot be opened, or its schema is not one that can be read.
    """
    if not uri.startswith("sqlite"):
        check_schema(uri)
    state = schema_of(uri)
    if state == "empty":
        raise _fault(uri, "holds no MLflow store; name another one with tracking.uri=...")
    if not uri.startswith("sqlite"):
        return uri
    file = sqlite_file(uri)
    if state == "newer":
        raise _fault(uri, _newer())
    if state == "older":
        log.warning("%s %s; until then a private copy is upgraded and read.", file, OLDER)
    flags, moved = _flags(file), _moved(file) if state == "current" else []
    if state == "older" or moved or not flags:
        return f"sqlite:///{_prepared(file, _stamp(file))}"
    # The stamp is for MLflow, which keeps what it has opened at an address: a file that has changed is another one.
    return f"sqlite+pysqlite:///file:{quote(str(file))}?{flags}&uri=true&stamp={_stamp(file)}"


def check_schema(uri: str) -> None:
    """Pass where MLflow may open the database at `uri` as it is: with tables of its own schema, or with none.

    Waits while another program (`mlflow ui`) creates or upgrades them.

    Raises:
        UserError: they are older or newer, with the command that helps; or it cannot be opened.
    """
    revision = _revision(uri, "mode=rw")
    while _state(revision) == "older":
        until = time.monotonic() + (SETTLED_S if revision else CREATED_S)
        while (later := _revision(uri, "mode=rw")) == revision:
            if time.monotonic() > until:
                raise _fault(uri, OLDER)
            time.sleep(0.5)
        revision = later
    if _state(revision) == "newer":
        raise _fault(uri, _newer())


def schema_of(uri: str) -> str:
    """`empty`, `older`, `current` or `newer`: how the tables of a database fit this MLflow. Nothing is written.

    Raises:
        UserError: it cannot be opened.
    """
    return _state(_revision(uri))


def _revision(uri: str, flags: str = "") -> str | None:
    """The name of the schema; "" when it has none; None without tables of MLflow's. `flags`: as of `_connected`."""
    import sqlalchemy

    try:
        return _of_file(sqlite_file(uri), flags) if uri.startswith("sqlite") else _of_server(uri)
    except (OSError, sqlite3.DatabaseError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise _fault(uri, f"cannot be opened ({one_line(hide_passwords(error))})") from None


def _state(revision: str | None) -> str:
    if revision is None:
        return "empty"
    known = _revisions()
    return "current" if revision == known[0] else "older" if revision in known else "newer"


def sqlite_file(uri: str) -> Path:
    """The file of an absolute SQLite address."""
    return Path(uri.partition(":///")[2])


@cache
def _revisions() -> tuple[str, ...]:
    """The schemas that this MLflow knows, its own one first; "" for one from before they had names."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    script = ScriptDirectory.from_config(_get_alembic_config(db_url=""))  # type: ignore[no-untyped-call]
    return (*(revision.revision for revision in script.walk_revisions()), "")


def _of_file(file: Path, flags: str) -> str | None:
    if not file.exists() or not file.stat().st_size:
        return None
    if not _header(file).startswith(SIGNATURE):
        raise sqlite3.DatabaseError("file is not a database")
    with closing(_connected(file, flags)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return _named(tables, lambda: database.execute("SELECT version_num FROM alembic_version").fetchone())


def _of_server(uri: str) -> str | None:
    import sqlalchemy

    key = "timeout" if uri.startswith("mssql") else "connect_timeout"
    engine = sqlalchemy.create_engine(uri, connect_args={key: PROBE_TIMEOUT_S}, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        tables = set(sqlalchemy.inspect(connection).get_table_names())
        return _named(tables, lambda: connection.exec_driver_sql("SELECT version_num FROM alembic_version").first())


def _named(tables: Container[str], ask: Callable[[], Sequence[str] | None]) -> str | None:
    if "alembic_version" in tables and (row := ask()):
        return str(row[0])
    return "" if "experiments" in tables and "runs" in tables else None


def _flags(file: Path) -> str:
    """How SQLite opens the file without making another one beside it; empty when it cannot."""
    in_use = all(file.with_name(file.name + end).exists() for end in ("-wal", "-shm"))  # so that none need be made
    return "mode=ro" if in_use or _header(file)[18] != WRITE_AHEAD else ""


def _header(file: Path) -> bytes:
    """The first bytes of the file, which stays open: see above."""
    found = file.stat()
    return os.pread(_opened(file, found.st_dev, found.st_ino), 100, 0)


@cache
def _opened(file: Path, device: int, inode: int) -> int:
    return os.open(file, os.O_RDONLY | os.O_CLOEXEC)


def _connected(file: Path, flags: str = "") -> sqlite3.Connection:
    """A connection that changes nothing; to a copy where the file itself cannot be opened so."""
    flags = flags or _flags(file)
    here = file if flags else _copied(file, _stamp(file))
    return sqlite3.connect(f"file:{quote(str(here))}?{flags or 'mode=ro'}", uri=True, timeout=PROBE_TIMEOUT_S)


def _stamp(file: Path) -> str:
    """Another one whenever something was written."""
    parts = (file, file.with_name(file.name + "-wal"))
    return "-".join(f"{part.stat().st_mtime_ns}" for part in parts if part.exists())


@cache
def _copied(file: Path, stamp: str) -> Path:
    """A copy of the file as it is now, its write-ahead log included.

    Raises:
        OSError: there is no room, or the file may not be read.
    """
    folder = Path(tempfile.mkdtemp(prefix="lamdagent-read-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if flags := _flags(file):
        with closing(_connected(file, flags)) as source, closing(sqlite3.connect(folder / file.name)) as target:
            source.backup(target)
        return folder / file.name
    parts = [part for part in (file, file.with_name(file.name + "-wal")) if part.exists()]
    done = subprocess.run(["cp", "--", *parts, folder], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())
    return folder / file.name


@cache
def _prepared(file: Path, stamp: str) -> Path:
    """A copy of this MLflow's schema, in which the addresses of artifacts that have moved with the file are right."""
    from mlflow.store.db.utils import _upgrade_db, create_sqlalchemy_engine

    copied = _copied(file, stamp)
    engine = create_sqlalchemy_engine(f"sqlite:///{copied}")  # type: ignore[no-untyped-call]
    _upgrade_db(engine)  # type: ignore[no-untyped-call]
    engine.dispose()
    for location in _moved(copied, file.parent):
        relocate_artifacts(copied, location, file.parent)
    return copied


def _moved(file: Path, beside: Path | None = None) -> list[str]:
    """The folders of experiments that are not there any more, while they lie beside the file."""
    with closing(_connected(file)) as database:
        every = [location for (location,) in database.execute("SELECT artifact_location FROM experiments")]
    return [location for location in every if has_moved(location, beside or file.parent)]


def _newer() -> str:
    import mlflow

    return (
        f"has the schema of a newer MLflow than the {mlflow.__version__} here. Update this one: pip install -U mlflow"
    )


def _fault(uri: str, problem: str) -> UserError:
    return UserError(f"tracking.uri: {hide_passwords(uri)} {problem}")
