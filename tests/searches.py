"""Real searches for tests: `python -m lamdagent` in a folder of its own, and its store as MLflow shows it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from lamdagent.tracking.connect import open_client

ROOT = Path(__file__).parents[1]
PATIENCE_S = 900.0
"""No search of the tests takes a tenth of it on a quiet machine."""


def begin(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a search; its output, the worker's too, is one pipe that ends when both are gone."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "OPENAI_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "lamdagent", "--config-dir", str(ROOT / "tests" / "conf"), *arguments],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A test run in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and (remaining) output, once the process and its worker are gone."""
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, output


def search(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """A whole search: exit code and output."""
    return end(begin(folder, *arguments, **environment))


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
