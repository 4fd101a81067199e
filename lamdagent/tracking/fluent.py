"""MLflow's process-wide address: traces are recorded through it, and a notebook has one of its own."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESS = "MLFLOW_TRACKING_URI"
LOGGERS = ("mlflow", "alembic")
"""Loggers that opening a store makes less chatty."""


@contextmanager
def fluent_state_kept() -> Iterator[None]:
    """Give back the address of MLflow's fluent functions and the levels of its loggers as they were before the block.

    The address is a variable of MLflow and one of the environment; who sets the first sets the second.
    """
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    variable, known = os.environ.get(ADDRESS), _known()
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if _known() != known:
            import mlflow

            mlflow.set_tracking_uri(known)  # type: ignore[arg-type]  # None: what the environment says
        os.environ.pop(ADDRESS, None)
        if variable is not None:
            os.environ[ADDRESS] = variable


def _known() -> str | None:
    """URI that `mlflow.set_tracking_uri` was given last; None: none, or MLflow is not even loaded."""
    module = sys.modules.get("mlflow.tracking._tracking_service.utils")
    return getattr(module, "_tracking_uri", None)
