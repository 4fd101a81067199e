#!/usr/bin/env python
"""SFT -> DPO -> merge, each model scored: this package's worker against the same written by hand.

    .venv/bin/python scripts/bench/bench_chain.py                             a pico model: a quick look
    .venv/bin/python scripts/bench/bench_chain.py --model smollm2 --items 32  the trainings of +experiment=tooluse

By hand (plain_chain.py: TRL, peft, mergekit and lm-eval alone) it is done twice: with a process per step, as
scripts usually are (lm-eval's and mergekit's own commands among them), and by an expert in one process. Ours are the
jobs of a search in a worker that is started for it, imports included. Settings, rows and items are the same.

Ours computes only the logits that a loss needs, which may round otherwise. Where the weights of all runs are not the
same bit by bit, the chain by hand is done once more, unmeasured, with just that changed: its weights must be ours, else
the exit code is 1. Scores are told, not asserted: in bf16, single replies have differed on equal weights, also between
the two ways by hand. The last line is one JSON object with the figures.
"""

import dataclasses
import importlib
import json
import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from in_turn import (
    PLAIN_MERGE,
    ROOT,
    Ratio,
    Row,
    Worker,
    action,
    base_of,
    first,
    in_turn,
    lm_eval,
    make,
    parser,
    planned,
    rows_file,
    run,
    same_weights,
    show,
)

from lamdagent.actions.recipe import Device, adapter, arguments
from lamdagent.actions.training import Training
from lamdagent.evaluation.fingerprint import BUILTIN
from lamdagent.evaluation.task import Task
from lamdagent.export.folder import RecordingContext
from lamdagent.planning.plan import Plan

PLAIN = [sys.executable, str(ROOT / "scripts" / "bench" / "plain_chain.py")]
STEPS = ("sft", "dpo", "merge")
CPU = Device(gpu=False, cpu=True, bf16=False)
Scores = list[dict[str, float]]
"""Task -> score, of each model."""


@dataclasses.dataclass(frozen=True)
class Done:
    """One run of the chain."""

    seconds: float
    scores: Scores
    folder: Path
    """`sft`, `dpo` and `merge` in it each have a `model`."""


@dataclasses.dataclass(frozen=True)
class Chain:
    """What is done."""

    plan: Plan
    base: str
    items: int
    work: Path

    @property
    def tasks(self) -> list[Task]:
        """The experiment's, on the items that lm-eval's command reads."""
        limits = {"search": self.items}
        return [dataclasses.replace(task, splits={"search": "test"}, limits=limits) for task in self.plan.tasks]

    @property
    def batch_size(self) -> int:
        """Sequences at once in an evaluation."""
        return self.plan.config.evaluation.batch_size

    def calls(self, folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
        """Step -> an action's function and its keyword arguments, with models below `folder`."""
        sft, dpo = (str(folder / step / "model") for step in STEPS[:2])
        objects: dict[str, dict[str, Any]] = {
            "sft": {"model": self.base, "dataset": first(self.plan, "sft")},
            "dpo": {"model": sft, "dataset": first(self.plan, "preference")},
            "merge": {"models": [sft, dpo]},
        }
        return {step: action(self.plan, step, objects[step]) for step in STEPS}

    def settings(self, folder: Path, compact: bool = False) -> Path:
        """The same for scripts that know nothing of this package; `compact`: see there."""
        made: dict[str, Any] = {"compact": compact}
        for step, (function, values) in self.calls(folder).items():
            module, _, name = function.partition(":")
            noted: Any = getattr(importlib.import_module(module), name)(RecordingContext(Path()), **values)[0]
            target = folder / step / "model"
            if step == "merge":
                file = folder / "merge.yaml"
                file.write_text(yaml.safe_dump(noted.configuration("bfloat16")))
                made[step] = {"yaml": str(file), "output": str(target)}
            else:
                made[step] = self._training(noted, target, folder / f"{step}.jsonl")
        tasks = [task.task for task in self.tasks]
        evaluation = {"folder": str(BUILTIN), "tasks": tasks, "limit": self.items, "batch_size": self.batch_size}
        path = folder / "settings.json"
        path.write_text(json.dumps(made | {"evaluation": evaluation}))
        return path

    def _training(self, noted: Training, target: Path, rows: Path) -> dict[str, Any]:
        recipe = noted.recipe
        layers = json.loads((Path(self.base) / "config.json").read_text())["num_hidden_layers"]
        last = list(range(layers - recipe.lora_layers, layers)) if recipe.lora_layers else None
        lora = adapter(recipe, None, last)
        return {
            "model": noted.model,
            "rows": rows_file(noted.dataset, noted.columns, rows),
            "output": str(target),
            # TRL's own defaults are made for GPUs; what they cost on a CPU is scripts/bench/bench_training.py's to say.
            "arguments": {**arguments(recipe, 0, str(target), CPU), **noted.options},
            "lora": {key: lora[key] for key in lora if key != "target_modules"} if recipe.lora_rank else None,
        }


def processes(chain: Chain, number: int) -> Done:
    """A process per step."""
    folder = _folder(chain, f"processes-{number}")
    settings = str(chain.settings(folder))
    started, scores = time.monotonic(), []
    for step in STEPS:
        model = folder / step / "model"
        if step == "merge":
            run([*PLAIN_MERGE, str(folder / "merge.yaml"), str(model)], folder)
        else:
            run([*PLAIN, step, settings], folder)
        found = lm_eval(str(model), [task.task for task in chain.tasks], chain.items, chain.batch_size, folder / step)
        scores.append(_scores(chain, found.results))
    return Done(time.monotonic() - started, scores, folder)


def one_process(chain: Chain, number: int) -> Done:
    """Everything in one process, by hand."""
    folder = _folder(chain, f"one-process-{number}")
    spent = run([*PLAIN, "all", str(chain.settings(folder))], folder)
    scores = [_scores(chain, found) for found in json.loads((folder / "scores.json").read_text())]
    return Done(spent.seconds, scores, folder)


def check(chain: Chain) -> Done:
    """One process, by hand, told to leave out the logits that no loss needs."""
    folder = _folder(chain, "check")
    run([*PLAIN, "all", str(chain.settings(folder, compact=True))], folder)
    return Done(0.0, [], folder)


def ours(chain: Chain, number: int) -> Done:
    """The jobs of a search."""
    folder = _folder(chain, f"ours-{number}")
    started, scores, sums = time.monotonic(), [], {}
    with closing(Worker()) as worker:
        for step, (function, values) in chain.calls(folder).items():
            known = {model: sums[model] for model in [values.get("model"), *values.get("models", ())] if model in sums}
            more = {"checksums": known, "tasks": chain.tasks, "batch_size": chain.batch_size}
            outcome = make(worker, function, values, folder / step, **more)
            assert outcome.weights is not None
            sums[str(folder / step / "model")] = outcome.weights.sha256
            scores.append({name: score.value for name, score in outcome.scores.items()})
    return Done(time.monotonic() - started, scores, folder)


def _folder(chain: Chain, name: str) -> Path:
    folder = chain.work / name
    for step in STEPS:
        (folder / step).mkdir(parents=True)
    return folder


def _same(one: Path, other: Path) -> bool:
    return all(same_weights(one / step / "model", other / step / "model") for step in STEPS)


def _scores(chain: Chain, results: Any) -> dict[str, float]:
    return {task.name: results[task.task][task.metric] for task in chain.tasks}


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--items", type=int, default=32, help="of each task")
    options.add_argument("--quick", action="store_true", help="leave out the processes per step, the slowest way")
    chosen = options.parse_args()
    plan = planned(chosen.model, *chosen.set)
    with tempfile.TemporaryDirectory(prefix="bench-chain-") as folder:
        chain = Chain(plan, base_of(plan), chosen.items, Path(folder))
        ways = {way.__name__: partial(way, chain) for way in (processes, one_process, ours)[chosen.quick :]}
        done = in_turn(chosen.pairs, ways)
        mine = done["ours"][0].folder
        every = [found.folder for found in done.get("processes", []) + done["one_process"]]
        same = all(_same(mine, folder) for folder in every)
        compact = same or _same(mine, check(chain).folder)
        again = all(_same(mine, found.folder) for found in done["ours"])
    scores = {name: [found.scores for found in runs] for name, runs in done.items()}
    seconds = {name: [round(found.seconds, 2) for found in runs] for name, runs in done.items()}
    figures = {"model": chosen.model, "pairs": chosen.pairs, "items": chosen.items, "seconds": seconds}
    figures |= {"weights_equal": compact and again, "weights_equal_with_all_logits": same}
    figures |= {"scores_equal": len({json.dumps(one) for each in scores.values() for one in each}) == 1}
    figures |= {"scores": {name: each[0] for name, each in scores.items()}}
    targets = {"processes": ("a process per step", "<= 0.8"), "one_process": ("one process", "<= 1.05")}
    rows = [
        Row(f"ratio_{way}", f"ours / {what}", Ratio.of(seconds["ours"], seconds[way]), target)
        for way, (what, target) in targets.items()
        if way in seconds
    ]
    print(f"the same weights, bit by bit: {figures['weights_equal']}")
    print(f"the same scores in all runs: {figures['scores_equal']}")
    show(f"{chosen.model}: SFT -> DPO -> merge, each scored", rows, figures)
    if not figures["weights_equal"]:
        raise SystemExit("the weights differ")


if __name__ == "__main__":
    main()
