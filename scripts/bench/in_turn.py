"""What the benchmarks share: ways of doing one thing run in turn, their ratios in a table, figures as the last line."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from lamdagent.actions.context import chosen_rows
from lamdagent.config import conf_folder, read
from lamdagent.evaluation.fingerprint import BUILTIN
from lamdagent.execution.executor import WARM_UP, Failed, Finished, Job
from lamdagent.execution.local import LocalExecutor
from lamdagent.objects.adapters import spec_of
from lamdagent.planning.plan import Plan, make_plan
from lamdagent.worker.make import Outcome

ROOT = Path(__file__).resolve().parents[2]
PLAIN_MERGE = [str(Path(sys.executable).parent / "mergekit-yaml")]
"""mergekit's own command, of the environment that runs this."""
EXPERIMENTS = {"pico": "smoke", "smollm2": "tooluse"}
"""Model -> the experiment whose models, data, actions and tasks a benchmark takes; the first is for a quick look."""
LIMIT_S = 24 * 3600.0
T = TypeVar("T")


@dataclass(frozen=True)
class Ratio:
    """One figure over all pairs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, over: Sequence[float], under: Sequence[float]) -> "Ratio":
        """`over` / `under`, pair by pair."""
        each = [a / b for a, b in zip(over, under, strict=True)]
        return cls(statistics.median(each), min(each), max(each))


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    """In the JSON object, which has `<key>_low` and `<key>_high`, too."""
    what: str
    ratio: Ratio
    target: str
    """For people: nothing is asserted, since the machine may be busy."""


def parser(text: str | None) -> argparse.ArgumentParser:
    """The options that all have."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", choices=list(EXPERIMENTS), default="pico", help="pico: a quick look")
    made.add_argument("--pairs", type=int, default=5, help="how often each way is run")
    made.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to the experiment")
    return made


def in_turn(pairs: int, ways: Mapping[str, Callable[[int], T]]) -> dict[str, list[T]]:
    """Call every way with the number of the pair, `pairs` times, in an order that is turned round each time."""
    found: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(pairs):
        for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
            found[name].append(ways[name](number))
            print(f"pair {number + 1} of {pairs}: {name}", flush=True)
    return found


def show(title: str, rows: Sequence[Row], figures: Mapping[str, Any]) -> None:
    """The table, then one JSON object as the last line."""
    table = Table("ratio", "median", "lowest", "highest", "target", title=title)
    told: dict[str, Any] = {}
    for row in rows:
        values = (row.ratio.median, row.ratio.low, row.ratio.high)
        table.add_row(row.what, *(f"{value:.2f}" for value in values), row.target)
        told |= dict(zip((row.key, f"{row.key}_low", f"{row.key}_high"), (round(v, 4) for v in values), strict=True))
    Console().print(table)
    print(json.dumps(told | figures))


def planned(model: str, *overrides: str) -> Plan:
    """The experiment that goes with a model, checked as for a search."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return make_plan(read(compose("config", [f"+experiment={EXPERIMENTS[model]}", *overrides])))


def first(plan: Plan, kind: str) -> str:
    """The rows of the plan's first dataset of that kind."""
    return next(dataset.path for dataset in plan.datasets if dataset.kind == kind)


def action(plan: Plan, start: str, objects: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Function and keyword arguments of the first action type whose name starts so: first values, `objects`."""
    kind = next(kind for kind in plan.types if kind.name.startswith(start))
    return kind.function, {**{name: values[0] for name, values in kind.grid.items()}, **objects}


def rows_file(source: str, columns: Sequence[str], target: Path) -> str:
    """The rows in the order in which the actions train on them, for whoever trains without them."""
    target.write_text("".join(json.dumps(row) + "\n" for row in chosen_rows(source, 1.0, columns)), encoding="utf-8")
    return str(target)


class Worker:
    """The worker process of a search."""

    def __init__(self, warm_up: tuple[str, ...] = WARM_UP) -> None:
        """Start it; it imports `warm_up` meanwhile."""
        self._executor = LocalExecutor(warm_up)

    def call(self, target: str, **arguments: Any) -> Any:
        """The value of one job; what goes wrong ends the benchmark."""
        self._executor.submit(Job(target, target, arguments, LIMIT_S))
        while not isinstance(event := self._executor.next_event(60.0), Finished):
            if isinstance(event, Failed):
                raise SystemExit(f"{target} failed: {event.reason}\n{event.details}")
        return event.value

    def close(self) -> None:
        """End it."""
        self._executor.close()


def make(worker: Worker, function: str, values: Mapping[str, Any], output: Path, **more: Any) -> Outcome:
    """An action as a search does it; its model is in `output`/model."""
    given = {"run_id": output.name, "seed": 0, "data_fraction": 1.0, "tasks": [], "batch_size": 1, **more}
    output.mkdir(parents=True, exist_ok=True)
    job = {"function": function, "inputs": dict(values), "output": str(output)}
    return worker.call("lamdagent.worker.make:make", **job, **given)  # type: ignore[no-any-return]


def base_of(plan: Plan) -> str:
    """Local folder of the plan's model, fetched and converted if need be."""
    with closing(Worker(warm_up=())) as worker:
        spec = spec_of(next(iter(plan.config.models)), plan.config.models)
        return str(worker.call("lamdagent.worker.prepare:prepare_model", spec=spec).folder)


@dataclass(frozen=True)
class Spent:
    """What a command took."""

    seconds: float
    megabytes: float
    """Largest resident memory, of the command alone."""


def run(command: Sequence[str], folder: Path) -> Spent:
    """Run a command to its end in `folder`; one that fails ends the benchmark with what it said."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    log = folder / "log"
    started = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:500]} failed: {log.read_text()[-3000:]}")
    return Spent(time.monotonic() - started, usage.ru_maxrss / 1024)


@dataclass(frozen=True)
class Evaluated:
    """What lm-eval's command gave."""

    seconds: float
    results: Mapping[str, Any]
    """Task -> its figures."""
    samples: Mapping[str, Sequence[Any]]
    """Task -> its items, in their order."""


def lm_eval(model: str, tasks: Sequence[str], items: int, batch_size: int, folder: Path) -> Evaluated:
    """lm-eval's own command on our folder of tasks, as in docs/evaluation.md; `folder` gets what it writes."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model}"]
    command += ["--include_path", str(BUILTIN), "--tasks", ",".join(tasks), "--limit", str(items), "--log_samples"]
    command += ["--batch_size", str(batch_size), "--apply_chat_template", "--fewshot_as_multiturn"]
    spent = run([*command, "--output_path", str(folder / "lm-eval")], folder)
    (found,) = folder.rglob("lm-eval/**/results_*.json")
    samples = {task: _lines(next(folder.rglob(f"lm-eval/**/samples_{task}_*.jsonl"))) for task in tasks}
    return Evaluated(spent.seconds, json.loads(found.read_text())["results"], samples)


def _lines(path: Path) -> list[Any]:
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda row: row["doc_id"])


def same_weights(one: str | Path, other: str | Path) -> bool:
    """Whether two model folders hold the same tensors, bit by bit."""
    return _tensors(one) == _tensors(other)


def _tensors(folder: str | Path) -> dict[str, Any]:
    from safetensors import deserialize

    files = sorted(Path(folder).glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in deserialize(file.read_bytes())}
