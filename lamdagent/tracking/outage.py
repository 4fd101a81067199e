"""Outages of a store: which faults pass and which never do, and when to ask again."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import sqlalchemy
from mlflow.exceptions import MlflowException

from lamdagent.errors import UserError

NEVER = (
    "INVALID_PARAMETER_VALUE",
    "MALFORMED_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "NOT_IMPLEMENTED",
)
"""MLflow's error codes that no waiting mends. Refused credentials (401, 403) are not among them: they get renewed.

Nor is BAD_REQUEST, which stands for any fault of SQLAlchemy's, lost connections too.
"""
NEVER_STATUS = (400, 405, 410, 411, 413, 414, 415, 422, 431, 501)
"""The same of an artifact server. 404 is what a proxy says while the server behind it is away."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Between two questions to a store that did not answer."""
STORE_FAULTS: tuple[type[Exception], ...] = (MlflowException, OSError)
"""Exceptions that a query raises when the store cannot answer it: for callers that go on without the answer."""
RETRIES, BACKOFF = "3", "1"
"""Retries and back-off of MLflow's own requests, unless the user set them: seconds, where its defaults take minutes."""


def is_outage(error: BaseException) -> bool:
    """Whether the same write may succeed later: nobody answers, 5xx, refused credentials, a locked or full database."""
    if isinstance(error, MlflowException):
        return error.error_code not in NEVER
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code not in NEVER_STATUS
    if isinstance(error, FileNotFoundError):  # of ours
        return False
    if isinstance(error, UserError) and error.__cause__ is not None:
        return is_outage(error.__cause__)
    return isinstance(error, OSError | sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError)


class CircuitBreaker:
    """Closed until a fault is seen; then the store is tried again at growing intervals, until it answers."""

    def __init__(self) -> None:
        """Closed: the store is taken to answer."""
        self._faults = 0
        self._again = 0.0

    @property
    def closed(self) -> bool:
        """Whether the last thing heard of the store was an answer."""
        return self._faults == 0

    @property
    def due(self) -> bool:
        """Whether the store may be asked (again) now."""
        return time.monotonic() >= self._again

    @property
    def pause_s(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self._again - time.monotonic())

    def record_failure(self) -> None:
        """Note a fault of the store."""
        self._again = time.monotonic() + PAUSES_S[min(self._faults, len(PAUSES_S) - 1)]
        self._faults += 1

    def record_success(self) -> None:
        """Note an answer of the store."""
        self._faults, self._again = 0, 0.0


def fail_fast() -> None:
    """Make MLflow give up a request within seconds, since what cannot be written is kept; we report the faults."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", BACKOFF)
    # MLflow would print the traceback of every refused connection and locked database.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@contextmanager
def http_retries(retries: int, timeout_s: int | None = None) -> Iterator[None]:
    """Retry MLflow's REST calls this often, with this timeout, inside the block; afterwards as before."""
    values = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}
    if timeout_s is not None:
        values["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(timeout_s)
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
