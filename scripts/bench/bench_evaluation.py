#!/usr/bin/env python
"""Items a second against lm-eval's own command on the same folder of tasks, replies compared.

    .venv/bin/python scripts/bench/bench_evaluation.py                               a pico model: a quick look
    .venv/bin/python scripts/bench/bench_evaluation.py --model smollm2 --items 64    135M parameters, task `bfcl`

Two ratios. `ratio`, end to end: `lm_eval run`, from start to end, against the job of a search that scores a model from
its folder, in a worker that has its imports behind it. `ratio_phase`, the evaluation alone: `lm_eval.simple_evaluate`
on a loaded model against ours on the same, imports and loading left out on both sides. Same model (what a first
training of the experiment makes of its base), items and batch size.

In float32, the exit code is 1 unless each item has the same score in all runs. With `--dtype bfloat16` rounding decides
between near-equal tokens, and it is another one where prompts are read otherwise: how many items differ is told. The
last line is one JSON object with the figures.
"""

import io
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from in_turn import Ratio, Row, Worker, action, base_of, first, in_turn, lm_eval, make, parser, planned, show

from lamdagent.evaluation.fingerprint import BUILTIN
from lamdagent.evaluation.task import Task
from lamdagent.execution.progress import Report

TASKS = {"pico": ("pico_spell", "acc"), "smollm2": ("bfcl", "right_call")}
"""Model -> task and metric; a pico model has nothing to say, it only compares answers."""


@dataclass(frozen=True)
class Evaluation:
    """What is scored."""

    model: str
    """Folder."""
    task: Task
    items: int
    batch_size: int
    work: Path

    @property
    def metric(self) -> str:
        """The task's, by its name in the samples."""
        return self.task.metric.partition(",")[0]


@dataclass(frozen=True)
class Done:
    """One evaluation."""

    seconds: float
    replies: Sequence[str]
    scores: Sequence[float]

    @classmethod
    def of(cls, seconds: float, rows: Sequence[Any], metric: str) -> "Done":
        """From lm-eval's samples."""
        rows = sorted(rows, key=lambda row: row["doc_id"])
        return cls(seconds, [_text(row["resps"][0][0]) for row in rows], [float(row[metric]) for row in rows])


def command(wanted: Evaluation, number: int) -> Done:
    """lm-eval's own command."""
    folder = wanted.work / f"command-{number}"
    folder.mkdir()
    found = lm_eval(wanted.model, [wanted.task.task], wanted.items, wanted.batch_size, folder)
    return Done.of(found.seconds, found.samples[wanted.task.task], wanted.metric)


def job(wanted: Evaluation, worker: Worker, number: int) -> Done:
    """The job of a search."""
    output = wanted.work / f"job-{number}"
    started = time.monotonic()
    arguments = {"folder": wanted.model, "tasks": [wanted.task], "split": "search", "batch_size": wanted.batch_size}
    worker.call("lamdagent.worker.make:score", **arguments, output=str(output))
    return _read(time.monotonic() - started, output / "samples")


def phase(wanted: Evaluation, worker: Worker, way: str, number: int) -> Done:
    """The evaluation alone; `way`: `plain` or `ours`."""
    return worker.call(f"bench_evaluation:{way}", wanted=wanted)  # type: ignore[no-any-return]


def cast(report: Report, *, folder: str, dtype: str) -> str:
    """The folder of the same model in that precision, in the worker."""
    import torch

    from lamdagent.actions.context import Context

    model, tokenizer = Context(Path()).load(folder)
    for part in (model.to(getattr(torch, dtype)), tokenizer):
        part.save_pretrained(f"{folder}-{dtype}")
    return f"{folder}-{dtype}"


def plain(report: Report, *, wanted: Evaluation) -> Done:
    """lm-eval by hand, in the worker."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(wanted.model, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(wanted.model)
    started = time.monotonic()
    with redirect_stderr(io.StringIO()):  # lm-eval's lines
        results: Any = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=wanted.batch_size),
            tasks=[wanted.task.task],
            task_manager=TaskManager(include_path=str(BUILTIN), include_defaults=False),
            limit=wanted.items,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
        )
    return Done.of(time.monotonic() - started, results["samples"][wanted.task.task], wanted.metric)


def ours(report: Report, *, wanted: Evaluation) -> Done:
    """The same with this package, in the worker."""
    from lamdagent.actions.context import Context
    from lamdagent.evaluation.harness import evaluate

    model, tokenizer = Context(Path()).load(wanted.model)
    with tempfile.TemporaryDirectory() as samples:
        started = time.monotonic()
        evaluate(model, tokenizer, [wanted.task], "search", report, Path(samples), wanted.batch_size)
        return _read(time.monotonic() - started, Path(samples))


def _read(seconds: float, samples: Path) -> Done:
    (file,) = samples.glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return Done(seconds, [_text(row["reply"]) for row in rows], [float(row["score"]) for row in rows])


def _text(reply: Any) -> str:
    """A reply, or a log-likelihood and whether it is the greedy choice: strings where a command wrote them."""
    return reply if isinstance(reply, str) else " ".join(str(part) for part in reply)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--items", type=int, default=32)
    options.add_argument("--batch-size", type=int, default=32, help="sequences")
    options.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the weights")
    chosen = options.parse_args()
    plan = planned(chosen.model, *chosen.set)
    base = base_of(plan)
    limits = {"search": chosen.items}
    name, metric = TASKS[chosen.model]
    task = Task(name, name, f"{metric},none", folder="builtin", splits={"search": "test"}, limits=limits)
    with tempfile.TemporaryDirectory(prefix="bench-evaluation-") as folder, closing(Worker()) as worker:
        training = action(plan, "sft", {"model": base, "dataset": first(plan, "sft")})
        make(worker, *training, Path(folder) / "trained")
        model = worker.call("bench_evaluation:cast", folder=f"{folder}/trained/model", dtype=chosen.dtype)
        wanted = Evaluation(model, task, chosen.items, chosen.batch_size, Path(folder))
        phase(replace(wanted, items=1, task=replace(task, limits={"search": 1})), worker, "plain", 0)  # first calls
        ways = {"command": partial(command, wanted), "job": partial(job, wanted, worker)}
        done = in_turn(chosen.pairs, ways | {way: partial(phase, wanted, worker, way) for way in ("plain", "ours")})
    reference = done["command"][0]
    seconds = {way: [round(one.seconds, 3) for one in found] for way, found in done.items()}
    rows = [
        Row("ratio", "items/s end to end, ours / lm_eval run", Ratio.of(seconds["command"], seconds["job"]), ">= 1.5"),
        Row("ratio_phase", "items/s of the evaluation alone", Ratio.of(seconds["plain"], seconds["ours"]), ">= 1.5"),
    ]
    figures = {"model": chosen.model, "pairs": chosen.pairs, "items": chosen.items, "batch_size": chosen.batch_size}
    figures["dtype"] = chosen.dtype
    figures |= {"seconds": seconds, "score": sum(reference.scores) / len(reference.scores)}
    for what in ("scores", "replies"):
        figures[f"{what}_unlike"] = {way: max(_unlike(one, reference, what) for one in done[way]) for way in done}
    figures["equal"] = not any(figures["scores_unlike"].values())
    print(f"items whose score is not that of lm-eval's command: {figures['scores_unlike']}")
    show(f"{chosen.model}: {chosen.items} items of {name}", rows, figures)
    if chosen.dtype == "float32" and not figures["equal"]:
        raise SystemExit("the scores differ")


def _unlike(one: Done, other: Done, what: str) -> int:
    return sum(a != b for a, b in zip(getattr(one, what), getattr(other, what), strict=True))


if __name__ == "__main__":
    main()
