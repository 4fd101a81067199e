#!/usr/bin/env python
"""The driver over thousands of trials: its memory and its time, in a real search whose actions cost nothing.

    .venv/bin/python scripts/bench_driver.py --trials 2000

The whole loop of a search (history, enumeration, policy, memory text, runs, artifacts, report) on a new SQLite store
with the experiment `letters`; a worker prepares and scores the base model. After that nothing is trained: each action
is answered at once with the base's weights and the scores of a recorded action of its type (docs/policies.md). So what
is measured is the driver: its resident memory, and the time from the end of one action to the start of the next. The
last line is one JSON object with the figures; `growth_mb` is what the second half of the trials has added.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from lamdagent.__main__ import conf_folder
from lamdagent.app import quiet_libraries
from lamdagent.config import read
from lamdagent.evaluation.task import Score
from lamdagent.execution.executor import Event, Finished, Job
from lamdagent.execution.local import LocalExecutor
from lamdagent.execution.work import Outcome
from lamdagent.landscape.table import load
from lamdagent.objects.checksum import seal
from lamdagent.plan import make_plan
from lamdagent.search import Search
from lamdagent.selection.agent import make_agent
from lamdagent.terminal import Terminal
from lamdagent.tracking.journal import Journal
from lamdagent.tracking.store import Store


@dataclass
class Answers:
    """An executor that does everything but actions, which it answers at once, and notes what the driver needs."""

    recorded: Mapping[str, Sequence[Mapping[str, Score]]]
    """Function of an action -> scores that it once gave."""
    rng: random.Random
    every: int
    """Trials between two lines."""
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
            return
        if self._answered:
            self._note(time.monotonic() - self._answered)
        assert self._base is not None
        model = Path(job.arguments["output"]) / "model"
        model.mkdir()
        for file in self._base.iterdir():
            os.link(file, model / file.name)
        scores = self.rng.choice(self.recorded[job.arguments["function"]])
        outcome = Outcome(scores, weights=seal(model), seconds={"action": 0.0, "evaluation": 0.0})
        self._events.append(Finished(job.id, outcome, 0.0))

    def next_event(self, timeout_s: float) -> Event | None:
        """See `Executor`."""
        if self._events:
            self._answered = time.monotonic()
            return self._events.popleft()
        return self._worker.next_event(timeout_s)

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

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


def main() -> None:
    """Search and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--policy", default="surrogate", help="of the group `agent`")
    parser.add_argument("--every", type=int, default=100, help="trials between two lines")
    options = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="bench-driver-") as folder, open(os.devnull, "w") as nowhere:
        os.chdir(folder)
        overrides = ["+experiment=letters", f"agent={options.policy}", f"budget.trials={options.trials}"]
        overrides += ["search.test_top=1", f"tracking.uri=sqlite:///{folder}/mlflow.db"]
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            node = compose("config", overrides)
        plan = make_plan(read(node))
        executor = Answers(recorded(), random.Random(0), options.every)
        started = time.monotonic()
        try:
            store = Store(plan.config.tracking.uri, plan.config.tracking.experiment)
            journal = Journal(store, plan, OmegaConf.to_yaml(node, resolve=True))
            view = Terminal(Console(file=nowhere))
            Search(plan, journal, executor, make_agent(plan.config, plan.tasks), view).run()
        finally:
            executor.close()
            os.chdir("/")
    half = executor.megabytes[len(executor.megabytes) // 2 - 1]
    figures = {"trials": options.trials, "policy": options.policy, "megabytes": executor.megabytes}
    figures |= {"milliseconds": executor.milliseconds, "growth_mb": executor.megabytes[-1] - half}
    print(json.dumps(figures | {"minutes": round((time.monotonic() - started) / 60, 1)}))


if __name__ == "__main__":
    main()
