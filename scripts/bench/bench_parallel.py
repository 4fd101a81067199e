#!/usr/bin/env python
"""Two Ray workers against one on the same actions, each of which keeps one core busy.

    .venv/bin/python scripts/bench/bench_parallel.py --actions 8 --steps 300 --rounds 3

Real actions (a pico model is trained and scored on five tasks) go through the executor that a search uses, on a Ray
cluster of two nodes with one CPU each; a worker has one thread. Imports and first calls are paid before the clock
starts. `ratio` is the median over rounds of (seconds with one worker) / (seconds with two), both taken in each round.
The driver's own work between two actions is not in it: bench_driver.py has that. The last line is one JSON
object with the figures.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"  # before the nodes start: their workers inherit it

from hydra import compose, initialize_config_dir

from lamdagent.actions.action import Action, inputs_of
from lamdagent.config import ExecutionConfig, conf_folder, read
from lamdagent.enumeration.space import ActionSpace
from lamdagent.execution.executor import Failed, Job
from lamdagent.execution.ray_executor import RayExecutor
from lamdagent.loop.job_pool import JobPool
from lamdagent.loop.terminal import Terminal
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan, make_plan
from lamdagent.worker.prepare import prepare_model


def planned(steps: int) -> Plan:
    """The experiment `letters`, its trainings as long as told."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        node = compose("config", ["+experiment=letters", f"actions.sft_full.hyperparameters.steps={steps}"])
    return make_plan(read(node))


def trainings(plan: Plan) -> list[Action]:
    """Every first training of the base."""
    settings = plan.config.models["letters"]
    spec = {"source": settings.source, "file": settings.file, "revision": settings.revision, "license": ""}
    found = prepare_model(lambda progress: None, spec=spec)
    base = Model(
        found.fingerprint, found.folder, base=found.fingerprint, architecture=found.architecture, vocabulary=512
    )
    space = ActionSpace(plan.types, [base], plan.datasets)
    return list(space.actions(next(t for t in plan.types if t.name == "sft_full")))


def job(plan: Plan, action: Action, name: str, folder: Path) -> Job:
    """The job that a search would send for `action`."""
    action_type = next(t for t in plan.types if t.name == action.type)
    (folder / name).mkdir()
    arguments: dict[str, Any] = {
        "run_id": name,
        "function": action_type.function,
        "inputs": inputs_of(action, action_type, lambda model: model.location),
        "seed": 0,
        "data_fraction": 1.0,
        "tasks": plan.tasks,
        "batch_size": plan.config.evaluation.batch_size,
        "output": str(folder / name),
    }
    return Job(name, "lamdagent.worker.make:make", arguments, 3600.0)


def seconds(address: str, workers: int, plan: Plan, actions: Sequence[Action]) -> float:
    """Wall time of all `actions` on so many workers, each of which has done one before."""
    with tempfile.TemporaryDirectory(prefix="bench-parallel-") as work:
        folder = Path(work)
        executor = RayExecutor(ExecutionConfig(kind="ray", address=address, at_once=workers))
        try:
            pool = JobPool(executor, Terminal(), lambda: None)
            warm = [job(plan, actions[0], f"warm-{number}", folder) for number in range(workers)]
            timed = [job(plan, action, f"timed-{number}", folder) for number, action in enumerate(actions)]
            for some in (warm, timed):
                started = time.monotonic()
                if failed := [ended for ended in pool.as_completed(some) if isinstance(ended, Failed)]:
                    raise SystemExit(f"an action failed: {failed[0].reason}\n{failed[0].details}")
            return time.monotonic() - started
        finally:
            executor.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=8, help="per measurement; an even number fills both workers")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from ray.cluster_utils import Cluster

    plan = planned(options.steps)
    every = trainings(plan)
    actions = [every[number % len(every)] for number in range(options.actions)]
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=small["object_store_memory"])
        cluster.wait_for_nodes()
        rounds = []
        for number in range(options.rounds):
            one, two = (seconds(cluster.address, workers, plan, actions) for workers in (1, 2))
            rounds.append({"one": round(one, 2), "two": round(two, 2), "ratio": round(one / two, 3)})
            print(f"round {number + 1}: one worker {one:.1f} s, two {two:.1f} s, ratio {one / two:.2f}", flush=True)
    finally:
        cluster.shutdown()
    ratio = statistics.median(figures["ratio"] for figures in rounds)
    print(json.dumps({"ratio": ratio, "actions": options.actions, "steps": options.steps, "rounds": rounds}))


if __name__ == "__main__":
    main()
