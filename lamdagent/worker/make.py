"""The jobs of a search: make a model and score it without loading it again, or score one that exists.

Runs in the worker; plain values in, plain values out.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lamdagent.evaluation.backends import Evaluation, ScoredModel, load_backend
from lamdagent.evaluation.task import Score, Split, Task
from lamdagent.execution.executor import gpu_seconds
from lamdagent.execution.progress import Progress, Report
from lamdagent.functions import load_function
from lamdagent.objects.checksum import WeightsHash, check, hash_weights
from lamdagent.worker.requirements import check_needs, uses_gpu

if TYPE_CHECKING:  # the driver names the jobs of this file and imports it
    from lamdagent.actions.context import Context


@dataclass(frozen=True)
class Point:
    """One value of a trainer's curve, as MLflow stores it."""

    key: str
    value: float
    step: int
    timestamp_ms: int


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job: figures here, files in its output folder (`model/`, `adapter/`, `dataset/`, `samples/`)."""

    scores: Mapping[str, Score]
    """Task name -> score on the task's own scale."""
    curves: Sequence[Point] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """`action` and `evaluation`, wall time."""
    gpu_seconds: float = 0.0
    """Wall time with a GPU in use, times the processes of the action; 0 on a CPU."""
    weights: WeightsHash | None = None
    """Checksum of the model in `model/`; None when nothing was made."""
    data: Mapping[str, Any] | None = None
    """Description of the rows in `dataset/` by `Gathered.about`, and a line in `overlap`; None when none were made."""


def make(
    report: Report,
    *,
    run_id: str,
    function: str,
    inputs: Mapping[str, Any],
    seed: int,
    data_fraction: float,
    tasks: Sequence[Task],
    batch_size: int,
    output: str,
    checksums: Mapping[str, str] | None = None,
    accelerate: Mapping[str, Any] = MappingProxyType({}),
    needs: Sequence[str] = (),
    overlap: str = "off",
) -> Outcome:
    """Run an action's function on local `inputs`, save its model under `output`/model, score it on the search split.

    While it runs, LAMDAGENT_RUN_ID names its run: mlflow_plugin nests there what a trainer logs to MLflow by itself.
    `checksums` has the folder of every input model, with the checksum of its weights where one was kept. `overlap`:
    what happens when rows that the action makes hold items of `tasks`, see `evaluation.overlap`.

    Raises:
        ActionFailed: kind `bad_model`: an input's weights, or the new ones, are not whole; what of `needs` is not here;
            or whatever the action says.
    """
    from lamdagent.actions.context import Context
    from lamdagent.evaluation.generated_data import comparison
    from lamdagent.objects.gathered import ABOUT

    curves: list[Point] = []

    def follow(progress: Progress) -> None:
        now = int(time.time() * 1000)
        curves.extend(Point(key, value, progress.done, now) for key, value in progress.metrics.items())
        report(progress)

    started = time.monotonic()
    check_needs(needs)
    for source, checksum in (checksums or {}).items():
        check(Path(source), checksum)
    folder, beside, data = (Path(output) / name for name in ("model", "adapter", "dataset"))
    check_rows = comparison(overlap, tasks)
    context = Context(folder, seed, data_fraction, follow, beside, data, accelerate, check=check_rows)
    model, tokenizer = _called(function, context, inputs, run_id)
    hashed = hash_weights(folder)
    made = time.monotonic()
    scored = ScoredModel(folder, (model, tokenizer))
    scores = _scores(scored, tasks, "search", batch_size, report, Path(output) / "samples")
    spent = {"action": made - started, "evaluation": time.monotonic() - made}
    about = json.loads((data / ABOUT).read_text(encoding="utf-8")) if (data / ABOUT).exists() else None
    outcome = _outcome(report, scores, curves, spent, accelerate.get("num_processes", 1))
    return replace(outcome, weights=hashed, data=about)


def _called(function: str, context: "Context", inputs: Mapping[str, Any], run_id: str) -> tuple[Any, Any]:
    """The model and tokenizer that the action's function gives, saved where the function has not done so itself."""
    os.environ["LAMDAGENT_RUN_ID"] = run_id
    try:
        model, tokenizer = load_function(function)(context, **inputs)
    finally:
        del os.environ["LAMDAGENT_RUN_ID"]
    if not (context.output / "config.json").exists():
        model.save_pretrained(context.output)
        tokenizer.save_pretrained(context.output)
    return model, tokenizer


def score(report: Report, *, folder: str, tasks: Sequence[Task], split: Split, batch_size: int, output: str) -> Outcome:
    """Score the model in `folder`; samples go to `output`/samples."""
    started = time.monotonic()
    scores = _scores(ScoredModel(Path(folder)), tasks, split, batch_size, report, Path(output) / "samples")
    return _outcome(report, scores, [], {"evaluation": time.monotonic() - started})


def _scores(
    model: ScoredModel, tasks: Sequence[Task], split: Split, batch_size: int, report: Report, samples: Path
) -> dict[str, Score]:
    """By the backend of the tasks: one search has one."""
    if not tasks:
        return {}
    asked = Evaluation(tasks, split, report, samples, batch_size, tasks[0].backend_options)
    return load_backend(tasks[0].backend).evaluate(model, asked)


def gpus(report: Report) -> int:
    """How many GPUs a job here uses: what its seconds are multiplied by, also when it fails."""
    return int(uses_gpu())


def _outcome(
    report: Report,
    scores: Mapping[str, Score],
    curves: Sequence[Point],
    seconds: Mapping[str, float],
    processes: int = 1,
) -> Outcome:
    used = gpu_seconds(sum(seconds.values()), gpus(report), processes)
    return Outcome(scores, tuple(curves), seconds, used)
