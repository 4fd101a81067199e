#!/usr/bin/env python
"""One turn over a pool of 10,000 models: enumeration and choice by each policy without an LLM, against a small pool.

    .venv/bin/python scripts/bench/bench_enumeration.py
    .venv/bin/python scripts/bench/bench_enumeration.py --models 100000 --policies surrogate

The history is made up (prompt_size.py): trainings and two-model merges, so that 10,000 models have 10^8 pairs.
A turn is the space of legal actions, made anew, and one decision. Each measurement is a process of its own: its peak
memory is that of imports, history and turns. The ratio is what a turn costs in the large pool against the small one.
The last line is one JSON object with the figures.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from in_turn import Ratio, Row, in_turn, run, show
from prompt_size import DATASETS, TYPES, grow

from lamdagent.enumeration.space import ActionSpace
from lamdagent.selection.policy import Turn

POLICIES = {"random": "RandomPolicy", "surrogate": "SurrogatePolicy", "tpe": "TPEPolicy"}
FAILED = 0.1
"""Share of the made-up trials that left no model."""


def inside(policy: str, models: int, turns: int) -> dict[str, float]:
    """Milliseconds of a turn, and the process's peak memory in MB."""
    choose: Any = getattr(import_module(f"lamdagent.selection.{policy}"), POLICIES[policy])()
    history, pool = grow(round(models / (1 - FAILED)))
    tried = [trial.action.fingerprint for trial in history.actions if trial.action]
    spent = []
    for number in range(turns + 1):
        started = time.perf_counter()
        space = ActionSpace(TYPES, pool, DATASETS, tried=tried)
        assert choose(Turn(history, space, number))
        spent.append(1000 * (time.perf_counter() - started))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ms": statistics.median(spent[1:]), "megabytes": peak, "models": len(pool)}


def measured(folder: Path, policy: str, models: int, turns: int, number: int) -> dict[str, float]:
    """`inside`, in a process of its own."""
    run([sys.executable, __file__, "--inside", policy, str(models), str(turns)], folder)
    return dict(json.loads((folder / "log").read_text().splitlines()[-1]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--small", type=int, default=100, help="models of the pool that it is compared with")
    parser.add_argument("--turns", type=int, default=5, help="of each measurement, after a first one")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    chosen = parser.parse_args()
    rows, figures = [], {}
    with tempfile.TemporaryDirectory(prefix="bench-enumeration-") as folder:
        for policy in chosen.policies:
            sizes = {"large": chosen.models, "small": chosen.small}
            ways = {name: partial(measured, Path(folder), policy, size, chosen.turns) for name, size in sizes.items()}
            done = in_turn(chosen.pairs, ways)
            times = {name: [one["ms"] for one in found] for name, found in done.items()}
            rows.append(Row(f"ratio_{policy}", policy, Ratio.of(times["large"], times["small"]), ""))
            figures[policy] = {
                f"{name}_{key}": round(statistics.median(one[key] for one in found), 2)
                for name, found in done.items()
                for key in ("ms", "megabytes", "models")
            }
            print(f"{policy}: {figures[policy]}", flush=True)
    show(f"a turn over {chosen.models} models / over {chosen.small}", rows, {"pairs": chosen.pairs, **figures})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        print(json.dumps(inside(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
