#!/usr/bin/env python
"""The driver over thousands of trials: its memory and its time, in a real search whose actions cost nothing.

    .venv/bin/python scripts/bench/bench_driver.py --trials 2000
    .venv/bin/python scripts/bench/bench_driver.py --trials 100 --every 20 --policy random --past 10000
    .venv/bin/python scripts/bench/bench_driver.py --trials 40 --every 20 --policy random --past 10000 --store server
    .venv/bin/python scripts/bench/bench_driver.py --trials 100 --every 50 --past 10000 --profile

The whole loop of a search (history, enumeration, policy, memory text, runs, artifacts, report) on a new store with the
experiment `letters`; a worker prepares and scores the base model. After that nothing is trained: each action is
answered at once with the base's weights and the scores of a recorded action of its type (docs/policies.md). So what is
measured is the driver: its resident memory, and the time from the end of one action to the start of the next.

`--past` puts so many made-up runs into the experiment before. Then the plain alternative is measured, too: what one
would write by hand for a trial, `mlflow.search_runs` into pandas, a new run with as many params, metrics and tags, its
end. `ratio` is ours to that. `--profile` prints where the driver's time goes. The last line is one JSON object with the
figures; `growth_mb` is what the second half of the trials has added.
"""

import argparse
import cProfile
import json
import multiprocessing
import os
import pstats
import random
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from bench_history import World, fill, serving
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from lamdagent.config import conf_folder, read
from lamdagent.evaluation.task import Score, Task
from lamdagent.execution.executor import Event, Finished, Job
from lamdagent.execution.local import LocalExecutor
from lamdagent.landscape.table import load
from lamdagent.libraries import quiet_libraries
from lamdagent.loop.run_writer import RunWriter
from lamdagent.loop.search import run
from lamdagent.loop.terminal import Terminal
from lamdagent.loop.world import World as SearchWorld
from lamdagent.objects.checksum import hash_weights
from lamdagent.planning.plan import Plan, make_plan
from lamdagent.selection.registry import make_agent
from lamdagent.tracking.store import RunStore
from lamdagent.worker.make import Outcome


@dataclass
class Answers:
    """An executor that does everything but actions, which it answers at once, and notes what the driver needs."""

    recorded: Mapping[str, Sequence[Mapping[str, Score]]]
    """Function of an action -> scores that it once gave."""
    rng: random.Random
    every: int
    """Trials between two lines."""
    shared: Path
    """Folder of artifacts of the past runs; gets the base's weights."""
    landed: Callable[[], None] = lambda: None
    """Called before an action ends."""
    capacity: int = 1
    megabytes: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    """Medians of `every` trials."""

    def __post_init__(self) -> None:
        """Start the worker."""
        self._worker = LocalExecutor()
        self._events: deque[Event] = deque()
        self._spans: list[float] = []
        self._answered = 0.0
        self._base: Path | None = None

    def submit(self, job: Job) -> None:
        """Answer an action; give the rest to the worker."""
        if not job.target.endswith(":make"):
            self._worker.submit(job)
            if job.target.endswith(":score") and self._base is None:
                self._base = Path(job.arguments["folder"])
                shutil.copytree(self._base, self.shared / "model")
            return
        if self._answered:
            self._note(time.monotonic() - self._answered)
        assert self._base is not None
        model = Path(job.arguments["output"]) / "model"
        model.mkdir()
        for file in self._base.iterdir():
            os.link(file, model / file.name)
        scores = self.rng.choice(self.recorded[job.arguments["function"]])
        outcome = Outcome(scores, weights=hash_weights(model), seconds={"action": 0.0, "evaluation": 0.0})
        self._events.append(Finished(job.id, outcome, 0.0))

    def next_event(self, timeout_s: float) -> Event | None:
        """See `Executor`."""
        if self._events:
            self.landed()
            self._answered = time.monotonic()
            return self._events.popleft()
        return self._worker.next_event(timeout_s)

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    @property
    def median_ms(self) -> float:
        """Of all trials but the first tenth, in which caches fill."""
        return round(1000 * statistics.median(self._spans[len(self._spans) // 10 :]), 1)

    def _note(self, span: float) -> None:
        self._spans.append(span)
        if len(self._spans) % self.every == 0:
            self.megabytes.append(psutil.Process().memory_info().rss >> 20)
            self.milliseconds.append(round(1000 * statistics.median(self._spans[-self.every :]), 1))
            told = f"{len(self._spans):6} trials  {self.megabytes[-1]:5} MB  {self.milliseconds[-1]:7.1f} ms a trial"
            print(told, flush=True)


def recorded() -> dict[str, list[Mapping[str, Score]]]:
    """Scores of the shipped landscape by the function that gave them."""
    landscape = load()[1][0]
    found: dict[str, list[Mapping[str, Score]]] = {t.function: [] for t in landscape.types}
    for action_type in landscape.types:
        found[action_type.function] += [t.scores for t in landscape.by_type[action_type.name] if t.score]
    return found


def make_past(uri: str, runs: int, tasks: Sequence[Task], shared: Path) -> None:
    """So many runs of `letters` that share one folder of artifacts, whose weights are the base's."""
    world = World(
        "letters",
        "sft_full",
        "merge_linear",
        ("letters_last", "letters_second", "letters_top", "letters_low"),
        {task.name: task.fingerprint for task in tasks},
        str(shared),
    )
    # In a process of its own: SQLite's statistics of an empty file would stay with this one's connections.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(fill, uri, runs, world).result()
    os.sync()  # else the disk is busy with all this while the search writes


def by_hand(uri: str, experiment: str) -> float:
    """Seconds of a trial in plain MLflow: all runs into pandas, then a run of the size of ours."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    started = time.perf_counter()
    frame = mlflow.search_runs(experiment_names=[experiment], max_results=10_000_000)
    frame.sort_values("start_time")
    mlflow.set_experiment(experiment)
    with mlflow.start_run(tags={f"tag{number}": "a value" for number in range(16)}):
        mlflow.log_params({f"param{number}": number for number in range(15)})
        mlflow.log_metrics({f"metric{number}": 0.5 for number in range(10)})
        mlflow.log_text("a memory of some lines", "memory.txt")
        mlflow.log_dict({"chosen": "an action"}, "decision.json")
    return time.perf_counter() - started


@contextmanager
def store_of(kind: str, folder: str, past: int, plan: Plan) -> Iterator[str]:
    """The address of a store with so many past runs."""
    backend = f"sqlite:///{folder}/mlflow.db"
    if past:
        make_past(backend, past, plan.tasks, Path(folder, "shared"))
    if kind == "sqlite":
        yield backend
        return
    with serving(backend) as uri:
        yield uri


def searched(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """One search; its figures."""
    overrides = ["+experiment=letters", f"agent={options.policy}", f"budget.trials={options.trials}"]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        node = compose("config", [*overrides, "search.test_top=1"])
    plan = make_plan(read(node))
    executor = Answers(recorded(), random.Random(0), options.every, shared=Path(folder, "shared"))
    with store_of(options.store, folder, options.past, plan) as uri, open(os.devnull, "w") as nowhere:
        profile = cProfile.Profile()
        try:
            store = RunStore(uri, plan.config.tracking.experiment)
            # Real actions take longer than `FRESH_S`: each of these trials asks for others' news, too.
            executor.landed = lambda: setattr(store.cache, "_asked", 0.0)
            journal = RunWriter(store, plan, OmegaConf.to_yaml(node, resolve=True))
            agent = make_agent(plan.config, plan.tasks)
            world = SearchWorld(plan, journal, executor, agent, Terminal(Console(file=nowhere)))
            if options.profile:
                profile.runcall(run, world)
            else:
                run(world)
        finally:
            executor.close()
        plain = [by_hand(uri, plan.config.tracking.experiment) for _ in range(options.plain)] if options.past else []
    if options.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats("lamdagent|mlflow/(store|tracking)", 40)
    half = executor.megabytes[len(executor.megabytes) // 2 - 1] if len(executor.megabytes) > 1 else 0
    figures = {"megabytes": executor.megabytes, "milliseconds": executor.milliseconds, "ms": executor.median_ms}
    figures["growth_mb"] = executor.megabytes[-1] - half
    if plain:
        figures |= {"by_hand_ms": round(1000 * statistics.median(plain), 1)}
        figures["ratio"] = round(figures["ms"] / figures["by_hand_ms"], 4)
    return figures


def main() -> None:
    """Search and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--policy", default="surrogate", help="of the group `agent`")
    parser.add_argument("--every", type=int, default=100, help="trials between two lines")
    parser.add_argument("--past", type=int, default=0, help="made-up runs that are there before")
    parser.add_argument("--plain", type=int, default=5, help="times that the plain alternative is run, with --past")
    parser.add_argument("--store", choices=["sqlite", "server"], default="sqlite")
    parser.add_argument("--profile", action="store_true", help="print where the driver's time goes; it is slower then")
    options = parser.parse_args()
    quiet_libraries()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-driver-") as folder:
        os.chdir(folder)
        try:
            figures = searched(options, folder)
        finally:
            os.chdir("/")
    asked = {"trials": options.trials, "policy": options.policy, "past": options.past, "store": options.store}
    print(json.dumps(asked | figures | {"minutes": round((time.monotonic() - started) / 60, 1)}))


if __name__ == "__main__":
    main()
