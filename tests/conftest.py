"""Fixtures that every test may use."""

import contextlib
import gc
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forkserver, python_shim, stores

_modules = 0
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: more threads slow pico models down
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # else a server starts eight processes for jobs


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Fork the test processes, too: the libraries are loaded once for all of them."""
    folder = Path(tempfile.mkdtemp(prefix="tests"))
    shims = contextlib.ExitStack()
    shims.enter_context(python_shim.on_path(folder))
    config.add_cleanup(lambda: shutil.rmtree(folder))
    config.add_cleanup(shims.close)
    for spec in specs:
        spec.python = str(folder / "python")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left alone with them in the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_runtest_setup() -> None:
    """Take what was imported out of the garbage collector's sight, as a worker does.

    Trainers have it look through everything again and again, half a second each time.
    """
    global _modules
    if len(sys.modules) > _modules + 50:  # not gc.get_freeze_count(): it counts for 0.1 s, each time
        _modules = len(sys.modules)
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def workers() -> None:
    """No worker of a test imports what a worker before it has imported."""
    forkserver.use_for_workers()


@pytest.fixture(scope="session", autouse=True)
def empty_stores() -> Iterator[None]:
    """No test waits for MLflow to create its tables, but for those that are about it."""
    with stores.created():
        yield


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMDAGENT_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def address() -> Iterator[None]:
    """What MLflow makes of an address is an environment variable, too: no test leaves its own to the next."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="session")
def pico_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model in Hugging Face layout. Read only."""
    from lamdagent import pico

    folder = tmp_path_factory.mktemp("pico")
    pico.build(folder)
    return str(folder)
