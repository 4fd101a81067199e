#!/usr/bin/env python
"""Run a space of actions for real, up to depth 3, and write what each scored: the landscape of compare_policies.py.

    .venv/bin/python scripts/studies/record_landscape.py --work /tmp/landscape --workers 2

Everything of depth 1 and 2 is run; of depth 3 everything over `--grown` models of depth 2, drawn at random with a fixed
seed: trained further, and merged with each other, the base and all models of depth 1. A recording that was stopped goes
on where it was. The last line is one JSON object with the figures.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

import lamdagent
from lamdagent.actions.action import Action, inputs_of
from lamdagent.actions.context import ignore_progress
from lamdagent.config import conf_folder, read
from lamdagent.enumeration.space import ActionSpace, produced
from lamdagent.landscape.table import SHIPPED, describe, write
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan, make_plan
from lamdagent.worker import make
from lamdagent.worker.prepare import prepare_model

Row = dict[str, Any]


class Recording:
    """One training seed: its rows, kept in a file, and its models."""

    def __init__(self, plan: Plan, base: Model, seed: int, folder: Path) -> None:
        """Rows of a stopped recording are read back from `folder`."""
        self.plan, self.base, self.seed, self.folder = plan, base, seed, folder / str(seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "rows.jsonl"
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.rows: dict[str, Row] = {row["id"]: row for row in map(json.loads, lines)}
        self.order: list[str] = []

    def run(self, pool: Executor, grown: int) -> None:
        """Run everything that has no row yet; `grown` models of depth 2 go on."""
        self.wave([None], pool)
        one = self.actions([self.base])
        self.wave(one, pool)
        first = self.made(one)
        two = self.actions([self.base, *first], fresh=first)
        self.wave(two, pool)
        second = self.made(two)
        drawn = random.Random(0).sample(second, min(grown, len(second)))
        trained = [a for a in self.actions(drawn) if len(a.models) == 1]
        merged = [a for a in self.actions([self.base, *first, *drawn], fresh=drawn) if len(a.models) > 1]
        self.wave([*trained, *merged], pool)

    def actions(self, models: Sequence[Model], fresh: Sequence[Model] = ()) -> list[Action]:
        """Every action over `models`; with `fresh` those that take at least one of these."""
        space = ActionSpace(self.plan.types, models, self.plan.datasets, seed=self.seed)
        wanted = {m.fingerprint for m in fresh or models}
        every = (action for t in self.plan.types for action in space.actions(t))
        return [action for action in every if any(m.fingerprint in wanted for m in action.models)]

    def made(self, actions: Sequence[Action]) -> list[Model]:
        """What the actions that did not fail have made."""
        return [produced(a, a.fingerprint) for a in actions if not self.rows[a.fingerprint]["failure"]]

    def wave(self, actions: Sequence[Action | None], pool: Executor) -> None:
        """Run what has no row yet, and keep the order of `actions`."""
        ids = {(a.fingerprint if a else self.base.fingerprint): a for a in actions}
        self.order += ids
        left = {pool.submit(run, self.job(a)): (i, a) for i, a in ids.items() if i not in self.rows}
        started = time.monotonic()
        for done, future in enumerate(as_completed(left), 1):
            fingerprint, action = left[future]
            scores, failure, seconds = future.result()
            self.rows[fingerprint] = row = self.row(fingerprint, action, scores, failure, seconds)
            with self.log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if done % 20 == 0 or done == len(left):
                rate = done / (time.monotonic() - started)
                print(
                    f"seed {self.seed}: {done}/{len(left)} of this wave, {(len(left) - done) / rate / 60:.1f} min left",
                    flush=True,
                )

    def row(self, fingerprint: str, action: Action | None, scores: Any, failure: str, seconds: float) -> Row:
        """One line of the table, with fingerprints for numbers."""
        return {
            "id": fingerprint,
            "type": action.type if action else "",
            "models": [m.fingerprint for m in action.models] if action else [],
            "datasets": [d.name for d in action.datasets] if action else [],
            "values": {key: action.hyperparameters[key] for key in action.choices} if action else {},
            "scores": scores,
            "failure": failure,
            "seconds": round(seconds, 2),
        }

    def job(self, action: Action | None) -> dict[str, Any]:
        """The arguments of `make.make`, or of `make.score` for the base."""
        shared = {"tasks": self.plan.tasks, "batch_size": self.plan.config.evaluation.batch_size}
        if action is None:
            return {"folder": self.base.location, "split": "search", "output": str(self.folder / "base"), **shared}
        action_type = next(t for t in self.plan.types if t.name == action.type)
        inputs = inputs_of(action, action_type, self.weights)
        ids = {"run_id": action.fingerprint, "function": action_type.function, "seed": action.seed}
        output = {"output": str(self.folder / action.fingerprint), "data_fraction": 1.0}
        return {**ids, "inputs": inputs, **output, **shared}

    def weights(self, model: Model) -> str:
        """Its folder."""
        return model.location if model.initial else str(self.folder / model.fingerprint / "model")

    def table(self) -> Iterator[Row]:
        """The rows with numbers instead of fingerprints."""
        number = {fingerprint: i for i, fingerprint in enumerate(self.order)}
        for fingerprint in self.order:
            row = self.rows[fingerprint]
            yield {"seed": self.seed, **row, "id": number[fingerprint], "models": [number[m] for m in row["models"]]}


def run(job: dict[str, Any]) -> tuple[dict[str, Any], str, float]:
    """In a worker: make and score a model, or score the base; a failure is a result."""
    started = time.monotonic()
    try:
        outcome = (make.make if "function" in job else make.score)(ignore_progress, **job)
    except Exception as error:
        return {}, f"{type(error).__name__}: {error}"[:200], time.monotonic() - started
    shutil.rmtree(Path(job["output"]) / "samples", ignore_errors=True)
    scores = {name: [round(s.value, 4), round(s.stderr, 4)] for name, s in outcome.scores.items()}
    return scores, "", time.monotonic() - started


def main() -> None:
    """Record, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="letters", help="of conf/experiment (default: %(default)s)")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and rows; kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds")
    parser.add_argument("--grown", type=int, default=16, help="models of depth 2 that go on (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(lamdagent.__file__).parent / "landscape" / SHIPPED)
    parser.add_argument("overrides", nargs="*", help="of the experiment's configuration, as in lamdagent")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        plan = make_plan(read(compose("config", [f"+experiment={given.experiment}", *given.overrides])))
    started = time.monotonic()
    spec = next(iter(plan.config.models.values()))
    ready = prepare_model(ignore_progress, spec={"source": spec.source, "license": spec.license})
    base = Model(ready.fingerprint, ready.folder, None, ready.fingerprint, 0, ready.architecture, ready.vocabulary)
    recordings = [Recording(plan, base, seed, given.work) for seed in given.seeds]
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
        for recording in recordings:
            recording.run(pool, given.grown)
    rows = [row for recording in recordings for row in recording.table()]
    figures = {
        "experiment": given.experiment,
        "version": lamdagent.__version__,
        "grown": given.grown,
        "seeds": given.seeds,
        "actions": sum(bool(row["type"]) for row in rows),
        "failed": sum(bool(row["failure"]) for row in rows),
        "action_minutes": round(sum(row["seconds"] for row in rows) / 60, 1),
        "wall_minutes": round((time.monotonic() - started) / 60, 1),
    }
    command = f"scripts/studies/record_landscape.py --seeds {' '.join(map(str, given.seeds))} --grown {given.grown}"
    command = " ".join([command, *given.overrides])
    write(
        given.output,
        {"schema": 1, "made": {**figures, "command": command}, **describe(plan.types, plan.datasets, plan.tasks)},
        rows,
    )
    print(json.dumps({**figures, "bytes": given.output.stat().st_size, "output": str(given.output)}))


if __name__ == "__main__":
    main()
