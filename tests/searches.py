"""Real commands for tests, in a folder of their own, and the store that they leave as MLflow shows it.

`lamdagent` and `search` call the command line in this process: what it imports is loaded once for all tests. `begin`
and `end` start it as a process, for tests whose point is the process: signals, kills, workers, what a terminal gets.
"""

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lamdagent.tracking.connect import open_client
from tests import forkserver, stores

ROOT = Path(__file__).parents[1]
CONF = ("--config-dir", str(ROOT / "tests" / "conf"))
PATIENCE_S = 900.0
"""No search of the tests takes a tenth of it on a quiet machine."""


def begin(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a search; its output, the worker's too, is one pipe that ends when both are gone."""
    if not any(word.startswith("tracking.uri=") for word in arguments):
        stores.create(folder / "mlflow.db")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPENAI_"))}
    return forkserver.Popen(
        [sys.executable, "-m", "lamdagent", *CONF, *arguments],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and (remaining) output, once the process and its worker are gone."""
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, output


class Said(NamedTuple):
    """How a command ended, and all that it wrote, on both streams."""

    code: int
    output: str


def lamdagent(folder: Path, *words: str, **environment: str) -> Said:
    """That command line in `folder`, without a process of its own."""
    output = io.StringIO()
    return Said(_exit_code(folder, words, environment, output, output), output.getvalue())


def streams(folder: Path, *words: str, **environment: str) -> tuple[int, str, str]:
    """Likewise: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    return _exit_code(folder, words, environment, out, err), out.getvalue(), err.getvalue()


def search(folder: Path, *words: str, **environment: str) -> Said:
    """A whole search; its jobs run in this process, too, unless the words name an executor."""
    if not any(word.startswith(("execution=", "execution.kind=")) for word in words):
        words = (*words, "execution=inline")
    return lamdagent(folder, *CONF, *words, **environment)


def _exit_code(folder: Path, words: Iterable[str], environment: dict[str, str], out: TextIO, err: TextIO) -> int:
    from lamdagent.__main__ import main

    with contextlib.ExitStack() as until, pytest.MonkeyPatch.context() as patch:
        until.enter_context(_as_before())
        until.enter_context(contextlib.redirect_stdout(out))
        until.enter_context(contextlib.redirect_stderr(err))
        for name in [name for name in os.environ if name.startswith(("MLFLOW_TRACKING", "OPENAI_"))]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["lamdagent", *map(str, words)])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Leave loggers and signals as they were: Hydra switches off every logger that there is."""
    loggers = [(one, one.disabled, one.level, list(one.handlers)) for one in _loggers()]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        logging.getLogger("lamdagent").handlers = []
        for one in _loggers():
            one.disabled = False  # those that were made meanwhile
        for one, disabled, level, before in loggers:
            one.disabled, one.handlers = disabled, before
            if one.level != level:  # setting it goes through every logger that there is
                one.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _loggers() -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict.values()
    return [logging.getLogger(), *(one for one in known if isinstance(one, logging.Logger))]


def client_of(folder: Path) -> MlflowClient:
    """Opened as the product does: whoever looks while a search creates the tables waits for them."""
    return open_client(f"sqlite:///{folder}/mlflow.db")


def runs_of(folder: Path, experiment: str) -> list[Run]:
    """All runs, oldest first, inputs and outputs included."""
    client = client_of(folder)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    page = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"], max_results=1000)
    return [client.get_run(run.info.run_id) for run in page]


def of_kind(runs: Iterable[Run], kind: str) -> list[Run]:
    return [run for run in runs if tag(run, "kind") == kind]


def tag(run: Run, key: str) -> str:
    """The value of `lamdagent.<key>`, empty when there is none."""
    return str(run.data.tags.get(f"lamdagent.{key}", ""))


def fingerprints(runs: Iterable[Run], status: str = "FINISHED") -> list[str]:
    """Of the actions of that status, in order."""
    return [tag(run, "fingerprint") for run in of_kind(runs, "action") if run.info.status == status]
