"""Opens a store: find it, prove that it answers, create its tables once, find or create the experiment."""

import hashlib
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lamdagent.errors import UserError
from lamdagent.text import hide_passwords
from lamdagent.tracking.indexes import ensure_indexes
from lamdagent.tracking.read_only import check_schema, readable, sqlite_file
from lamdagent.tracking.relocate import ARTIFACTS

# No "View run at" lines between ours.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# MLflow imports litellm here and there, and without a network that import hangs for ever (1.106.2: a thread that
# retries to fetch the price list dead-locks with the import). The list that litellm ships will do.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from lamdagent.tracking.outage import http_retries

log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's own default, so that a plain `mlflow ui` in the same folder shows the search."""
ALLOWED = "sqlite:///<file>, postgresql://, mysql:// or mssql:// with a host, or http(s)://<tracking server>"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's UI would otherwise ask whether this is about models or about traces."""
PROBE_TIMEOUT_S = 5
"""How long a database may stay silent before its address counts as wrong; for a server, before we say that we wait."""
ANSWER_TIMEOUT_S = 30
"""How long a server may take for its first answer, for which it is asked twice: it may be starting, or busy."""
MIGRATION_PAUSES_S = (0.5, 1, 2, 4, 8)
"""Between questions to a database whose tables are not all there; creating them takes a few seconds."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_REFUSALS = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
_REFUSED = re.compile(r"error code 40[13]\b")
"""MLflow's words for an answer that is not its own, such as a proxy's; the numbers alone may stand in an address."""


def resolve_uri(uri: str | None) -> str:
    """The address to use: `uri`, else MLFLOW_TRACKING_URI, else MLflow's default; SQLite paths are made absolute.

    Raises:
        UserError: a scheme that cannot hold a search.
    """
    given = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    scheme = given.partition("://")[0].partition("+")[0].lower()
    if "://" not in given or scheme not in (*_DATABASES, "http", "https"):
        raise _fault(given, "is not the address of an MLflow store")
    if scheme != "sqlite":
        return given.rstrip("/") if scheme.startswith("http") else given
    head, _, path = given.partition(":///")
    if not path or path == ":memory:":
        raise _fault(given, "names no file; every process of a search must see the same store")
    return f"{head}:///{Path(path).absolute()}"


def open_client(uri: str) -> MlflowClient:
    """A client to search with: its store has answered, its tables exist, and a database has the indexes that we want.

    `uri` comes from `resolve_uri`.

    Raises:
        UserError: unreachable, refused, not a store, or of another MLflow version; within a minute.
    """
    _quieten()
    if uri.startswith("http"):
        return _open_server(uri)
    probe_database(uri)
    with _one_at_a_time(uri):
        check_schema(uri)
        if uri.startswith("sqlite"):
            _write_ahead(uri)
        indexed = ensure_indexes(uri)  # before MLflow's connections load what statistics there are
        client = _first_answer_of_database(uri)
        if not indexed:
            ensure_indexes(uri)
        return client


def open_to_look(uri: str) -> MlflowClient:
    """A client that reads: no byte of a database changes, not even by MLflow. `uri` comes from `resolve_uri`.

    Raises:
        UserError: unreachable, refused, no store, or one that this MLflow cannot read.
    """
    _quieten()
    return _open_server(uri) if uri.startswith("http") else _first_answer(readable(uri))


def _quieten() -> None:
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def find_experiment(client: MlflowClient, name: str, uri: str) -> str:
    """Id of the experiment `name`, created if missing; safe when several processes do so at once.

    Raises:
        UserError: the experiment was deleted in MLflow.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, _artifact_root(uri, name), EXPERIMENT_TAGS))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise UserError(
            f"tracking.experiment: the experiment '{name}' was deleted in MLflow. Choose another name, or restore it: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def probe_database(uri: str) -> None:
    """One connection attempt with a short timeout: MLflow itself would retry for an hour.

    Raises:
        UserError: with the driver's own words.
    """
    import sqlalchemy

    folder = sqlite_file(uri).parent if uri.startswith("sqlite") else None
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        key = "timeout" if folder is not None or uri.startswith("mssql") else "connect_timeout"
        engine = sqlalchemy.create_engine(uri, connect_args={key: PROBE_TIMEOUT_S}, poolclass=sqlalchemy.pool.NullPool)
        engine.connect().close()
    except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise _fault(uri, f"cannot be opened ({_first_line(error)})") from None
    except ModuleNotFoundError as error:
        hint = "for PostgreSQL: pip install 'psycopg[binary]'"
        raise _fault(uri, f"needs the Python database driver '{error.name}', which is not installed ({hint})") from None


def _write_ahead(uri: str) -> None:
    """Give an SQLite file a write-ahead log, so that a slow reader locks no writers out.

    Raises:
        UserError: it may not be written.
    """
    import sqlalchemy

    patience = {"timeout": PROBE_TIMEOUT_S}
    engine = sqlalchemy.create_engine(uri, connect_args=patience, poolclass=sqlalchemy.pool.NullPool)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection, _unless_locked():
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise _fault(uri, f"cannot be opened ({_first_line(error)})") from None


def complete_file(uri: str) -> None:
    """Bring the write-ahead log into the file of an SQLite address, so that a copy of the file alone has everything.

    SQLite does so when the last connection closes; MLflow keeps its own open as long as the process lives.
    """
    if not uri.startswith("sqlite"):
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        uri, connect_args={"timeout": PROBE_TIMEOUT_S}, poolclass=sqlalchemy.pool.NullPool
    )
    away = suppress(sqlalchemy.exc.OperationalError)  # locked, or gone: nothing is lost by it
    with away, engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _unless_locked() -> Iterator[None]:
    """Leave tuning to the next start while another program holds the file, such as one that creates the tables."""
    import sqlalchemy

    try:
        yield
    except sqlalchemy.exc.OperationalError as error:
        if "locked" not in str(error):
            raise


def _open_server(uri: str) -> MlflowClient:
    """A client of a tracking server. Where nobody listens this fails at once; a server that is busy gets its time."""
    with (
        http_retries(1, ANSWER_TIMEOUT_S),
        _told_after(PROBE_TIMEOUT_S, f"Waiting for {hide_passwords(uri)} to answer."),
    ):
        return _first_answer(uri)


@contextmanager
def _told_after(seconds: float, message: str) -> Iterator[None]:
    """Warn if what is done in here takes longer."""
    timer = threading.Timer(seconds, log.warning, [message])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _first_answer_of_database(uri: str) -> MlflowClient:
    """As `_first_answer`, patient with tables that another program (`mlflow ui`) is creating at this moment.

    Our own processes queue for that; others do not, and MLflow's migrations fail in whoever comes second.
    """
    for pause in (*MIGRATION_PAUSES_S, None):
        try:
            return _first_answer(uri)
        except UserError as error:
            problem = error
        except Exception as error:  # SQLAlchemy's, Alembic's, ValueError, whatever a half-made table leads to
            problem = _fault(uri, f"could not be given MLflow's tables ({_first_line(error)})")
        if pause is not None:
            time.sleep(pause)
    raise problem


def _first_answer(uri: str) -> MlflowClient:
    """Make the client and ask it something; on an empty database this creates the tables."""
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(view_type=ViewType.ACTIVE_ONLY, max_results=1)
    except MlflowException as error:
        raise _fault(uri, _explain(error)) from None
    except (OSError, ValueError) as error:
        raise _fault(uri, f"does not answer like an MLflow store ({_first_line(error)})") from None
    return client


def _explain(error: MlflowException) -> str:
    """MLflow's error as the second half of a sentence that a person can act on."""
    message = str(error)
    if "out-of-date database schema" in message:
        return "was made by another MLflow version. Back it up, then run: mlflow db upgrade <address>"
    if error.error_code in _REFUSALS or _REFUSED.search(message):
        return "refused us. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)"
    if "timed out" in message:
        return f"does not answer (waited twice {ANSWER_TIMEOUT_S} s); is the server running"
    if "Connection refused" in message or "Max retries exceeded" in message:
        return "is not reachable; is the server running"
    return f"does not answer like an MLflow store ({_first_line(message)})"


def _fault(uri: str, problem: str) -> UserError:
    return UserError(f"tracking.uri: {hide_passwords(uri)} {problem}. Allowed: {ALLOWED}.")


def _first_line(error: object) -> str:
    text = hide_passwords(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Processes that create the tables of one empty database at the same time crash in MLflow's migrations."""
    from filelock import FileLock

    digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"lamdagent-{os.getuid()}-{digest}.lock"):
        yield


def _artifact_root(uri: str, name: str) -> str | None:
    """Artifacts lie beside an SQLite file, wherever the command is started; elsewhere the store decides."""
    if not uri.startswith("sqlite"):
        return None
    folder = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "experiment"
    return str(sqlite_file(uri).parent / ARTIFACTS / folder)
