#!/usr/bin/env python
"""Searches that are killed again and again, and what is left of them.

    .venv/bin/python scripts/soak.py --kills 100 --seed 0

Searches of the experiment `smoke` (random policy) run on an MLflow server, each in an experiment of its own, while at
random moments one of three is killed with SIGKILL: the driver (the same command is started again), its worker, or the
server (it comes back on its port within seconds). At most one worker is killed in each action: two lost workers say
that the action is to blame. When a search has ended, its store is held against a search of the same seed that nobody
disturbed:

- `lost`: an action that was seen finished is not there any more, or something still waits for the store
- `duplicated`: an action has been done twice
- `left_running`: a run is RUNNING
- `broken`: a model of the pool is not whole: its tensors do not have the checksum that its run names
- `different`: other actions were chosen, in another order or with other scores, or another champion is registered
- `unfinished`: it did not come to its end

    .venv/bin/python scripts/soak.py --kills 2 --per-search 1 --victims server --away 60 60 --after 3

stops the server for a minute in the middle of each of two searches. `--seed` repeats the choice of victims and of
pauses, not the moments in the code that they hit. The last line is one JSON object with how often each was found; exit
code 1 when anything was.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from lamdagent.objects.checksum import check
from lamdagent.tracking.delivery.outbox import ENTRY
from lamdagent.tracking.schema import CHAMPION_ALIAS, FINGERPRINT, KIND, MODEL_FOLDER, WEIGHTS_SHA256

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
PATIENCE_S = 1800.0
"""No disturbed search takes longer."""
PAUSE_S = (1.0, 12.0)
"""Between two kills."""
EXPERIMENT = "lamdagent-smoke"
VICTIMS = ("driver", "worker", "server")
KINDS = ("lost", "duplicated", "left_running", "broken", "different", "unfinished")
Fault = tuple[str, str]
"""One of `KINDS`, and what it is about."""


class Server:
    """An MLflow server that can be killed and comes back on the same port with the same store."""

    def __init__(self, folder: Path) -> None:
        """Start one in `folder`."""
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port)]
                + ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"],
                cwd=self.folder,
                env=inherited | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # eight processes less at each start
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + 180
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the server does not start; see {self.folder}/server.log")
            time.sleep(0.2)

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """End it and its workers at once."""
        os.killpg(self.process.pid, signum)
        self.process.wait()


@dataclass
class Driver:
    """One process of a search, and what it has printed."""

    command: Sequence[str]
    folder: Path
    environment: dict[str, str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lamdagent", *self.command],
            cwd=self.folder,
            env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        self.lines.extend(self.process.stdout)

    @property
    def doing(self) -> str:
        """What it does now; the action's number and description, once it is that far."""
        return next((line.strip() for line in reversed(list(self.lines)) if line.startswith("> ")), "")

    def worker(self) -> psutil.Process | None:
        """Its worker, once it has one."""
        try:
            children = psutil.Process(self.process.pid).children()
            return next((c for c in children if "spawn_main" in " ".join(c.cmdline())), None)
        except psutil.Error:
            return None


@dataclass
class Told:
    """What a disturbed search has been through, and what was found wrong with it afterwards."""

    kills: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    ending: str = ""
    """The last lines of a search that came to its end."""


class Soak:
    """One search that is disturbed, in a store of its own: a finished result elsewhere would stand for its action."""

    def __init__(self, folder: Path, seed: int, rng: random.Random, options: argparse.Namespace) -> None:
        """Start the server."""
        self.victims, self.away_s, self.after = options.victims, options.away, options.after
        self.command = command(seed, options.trials)
        self.rng = rng
        self.folder = folder
        self.cache = made(folder / "cache")
        self.server = Server(folder)
        self.told = Told()
        self.seen: set[str] = set()
        """Run ids of every action that was seen finished."""
        self.struck: set[str] = set()
        """Actions that have lost a worker."""

    def run(self, most: int) -> None:
        """The search with up to `most` kills, to its end."""
        driver = self.driver()
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            spent = self.told.kills.total() >= most
            code = self.ended(driver, 5.0 if spent else self.rng.uniform(*PAUSE_S))
            if code is not None:
                self.told.codes[code] += 1
                if code == 0:
                    self.told.ending = "".join(driver.lines[-20:])
                    return
                said = driver.lines[-2:] if code != 70 else driver.lines  # 70 comes with a traceback
                say(f"  the driver ended with {code}: {''.join(said).strip()}")
                driver = self.driver()
            elif not spent and self.far(driver):
                driver = self.strike(driver)
        driver.process.kill()
        self.told.faults.append(("unfinished", f"after {PATIENCE_S:g} s: {''.join(driver.lines[-5:])}"))

    def driver(self) -> Driver:
        """Start the search, or go on with it."""
        settings = {"MLFLOW_TRACKING_URI": self.server.uri, "LAMDAGENT_CACHE": str(self.cache)}
        return Driver(self.command, self.folder, settings)

    def ended(self, driver: Driver, pause_s: float) -> int | None:
        """The driver's exit code, if it ends within so long."""
        try:
            return driver.process.wait(pause_s)
        except subprocess.TimeoutExpired:
            return None

    def far(self, driver: Driver) -> bool:
        """Whether the search has come to the action from which on it may be disturbed."""
        number = driver.doing.removeprefix("> ").partition("/")[0]
        return self.after <= (int(number) if number.isdigit() else 0)

    def strike(self, driver: Driver) -> Driver:
        """Kill one of the three; the driver that goes on."""
        victim, away = self.rng.choice(self.victims), self.rng.uniform(*self.away_s)
        self.look()
        doing, worker = driver.doing, driver.worker()
        if victim == "worker":
            action = doing.partition(" ")[2].partition(" ")[2].partition("  [")[0]
            if worker is None or action in self.struck:
                return driver
            self.struck.add(action)
            worker.kill()
        elif victim == "driver":
            driver.process.kill()
            driver.process.wait()
            driver = self.driver()
        else:
            self.server.kill()
            time.sleep(away)
            self.server.start()
        self.told.kills[victim] += 1
        say(f"  killed the {victim} at: {doing or 'start'}")
        return driver

    def look(self) -> None:
        """Note which actions are finished now."""
        self.seen |= {run.info.run_id for run in finished(runs_in(self.server.uri))}

    def faults(self, calm: "Summary") -> list[Fault]:
        """What it has lost, doubled, left open or done otherwise."""
        runs = runs_in(self.server.uri)
        actions = finished(runs)
        faults = [("lost", run_id) for run_id in self.seen - {run.info.run_id for run in actions}]
        faults += [("lost", f"still waits: {entry.parent}") for entry in self.cache.glob(f"outbox/**/{ENTRY}")]
        twice = Counter(run.data.tags[FINGERPRINT] for run in actions)
        faults += [("duplicated", fingerprint) for fingerprint, times in twice.items() if times > 1]
        faults += [("left_running", run.info.run_id) for run in runs if run.info.status == "RUNNING"]
        faults += [("broken", problem) for run in actions if (problem := self.broken(run))]
        ours = summary(self.server.uri)
        return faults + [("different", f"{ours}, undisturbed {calm}")] * (ours != calm)

    def broken(self, run: Run) -> str:
        """What is wrong with the weights of a finished action, or an empty string."""
        from mlflow.artifacts import download_artifacts

        with tempfile.TemporaryDirectory() as folder:
            uri = f"runs:/{run.info.run_id}/{MODEL_FOLDER}"
            try:
                got = download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self.server.uri)
                check(Path(got), run.data.tags[WEIGHTS_SHA256])
            except Exception as error:
                return f"{run.info.run_id}: {error!r}"
        return ""


Summary = tuple[list[tuple[str, float]], str]
"""The finished actions in order with their scores, and the champion in the registry."""


def command(seed: int, trials: int) -> list[str]:
    """What is run."""
    return ["+experiment=smoke", "agent=random", f"search.seed={seed}", "search.test_top=1", f"budget.trials={trials}"]


def undisturbed(folder: Path, seed: int, trials: int) -> Summary:
    """A search that nobody disturbs."""
    uri = f"sqlite:///{folder}/mlflow.db"
    driver = Driver(command(seed, trials), folder, {"MLFLOW_TRACKING_URI": uri})
    if driver.process.wait(PATIENCE_S) != 0:
        raise SystemExit("".join(driver.lines))
    return summary(uri)


def runs_in(uri: str) -> list[Run]:
    """All runs of the search, oldest first; none before it has an experiment."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    order = ["attributes.start_time ASC"]
    return list(client.search_runs([found.experiment_id], order_by=order, max_results=1000)) if found else []


def finished(runs: Sequence[Run]) -> list[Run]:
    """Finished actions."""
    return [run for run in runs if run.data.tags.get(KIND) == "action" and run.info.status == "FINISHED"]


def summary(uri: str) -> Summary:
    """What came out."""
    actions = finished(runs_in(uri))
    chosen = [(run.data.tags[FINGERPRINT], round(run.data.metrics["score"], 6)) for run in actions]
    try:
        version = MlflowClient(uri).get_model_version_by_alias(EXPERIMENT, CHAMPION_ALIAS)
    except MlflowException:
        return chosen, "none"
    champions = [run.data.tags[FINGERPRINT] for run in actions if run.info.run_id == version.run_id]
    return chosen, champions[0] if champions else "not a finished action"


def made(folder: Path) -> Path:
    """A new folder."""
    folder.mkdir()
    return folder


def say(line: str) -> None:
    """Progress."""
    print(line, flush=True)


def main() -> None:
    """Kill until `--kills` are spent, judge every search, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--per-search", type=int, default=12, help="most kills in one search")
    parser.add_argument("--trials", type=int, default=10, help="of a search")
    parser.add_argument("--searches", type=int, default=3, help="seeds of searches to take turns")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS)
    parser.add_argument("--after", type=int, default=0, help="only from this action of a search on")
    parser.add_argument("--away", nargs=2, type=float, default=(1, 10), help="seconds that a killed server stays away")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    rng = random.Random(options.seed)
    kills, codes, faults, number = Counter[str](), Counter[int](), Counter[str](), 0
    calm: dict[int, Summary] = {}
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        while kills.total() < options.kills:
            seed = options.seed + number % options.searches
            if seed not in calm:
                calm[seed] = undisturbed(made(Path(folder, f"calm-{seed}")), seed, options.trials)
            say(f"search {number + 1}, seed {seed}; {kills.total()} kills so far")
            soak = Soak(made(Path(folder, f"search-{number}")), seed, rng, options)
            try:
                soak.run(min(options.per_search, options.kills - kills.total()))
                found = soak.told.faults or soak.faults(calm[seed])
            finally:
                soak.server.kill()
            for kind, about in found:
                say(f"  FAULT {kind}: {about}")
            if found:
                say(soak.told.ending)
            faults.update(kind for kind, _ in found)
            kills += soak.told.kills
            codes += soak.told.codes
            number += 1
    minutes = (time.monotonic() - started) / 60
    figures = {"kills": kills.total(), "killed": kills, "searches": number, **{kind: faults[kind] for kind in KINDS}}
    figures |= {"exit_codes": {str(code): times for code, times in codes.items()}, "minutes": round(minutes, 1)}
    print(json.dumps(figures))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
