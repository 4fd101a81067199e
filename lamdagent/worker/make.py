"""The jobs of a search: make a model and score it without loading it again, or score one that exists.

Runs in the worker; plain values in, plain values out.
"""

import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lamdagent.errors import ActionFailed
from lamdagent.evaluation.task import Score, Split, Task
from lamdagent.execution.call import explain
from lamdagent.objects.checksum import WeightsHash, check, hash_weights
from lamdagent.progress import Progress, Report
from lamdagent.worker.requirements import check_needs

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
    """What a job leaves: figures here, files in its output folder (`model/`, `adapter/`, `dataset/`, `samples/`)."""

    scores: Mapping[str, Score]
    """Task name -> score on the task's own scale."""
    curves: Sequence[Point] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """`action` and `evaluation`, wall time."""
    gpu_seconds: float = 0.0
    """Wall time with a GPU in use, times the processes of the action; 0 on a CPU."""
    weights: WeightsHash | None = None
    """Of the model in `model/`; None when nothing was made."""
    data: Mapping[str, Any] | None = None
    """What `Gathered.about` tells of the rows in `dataset/`, and a line in `overlap`; None when none were made."""


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
    samples = Path(output) / "samples"
    if (options := _vllm(tasks)) is None:
        scores = _evaluate(model, tokenizer, tasks, "search", batch_size, report, samples)
    else:
        _make_room(model)
        scores = _evaluate_folder(folder, options, tasks, "search", report, samples)
    spent = {"action": made - started, "evaluation": time.monotonic() - made}
    about = json.loads((data / ABOUT).read_text(encoding="utf-8")) if (data / ABOUT).exists() else None
    outcome = _outcome(report, scores, curves, spent, accelerate.get("num_processes", 1))
    return replace(outcome, weights=hashed, data=about)


def _called(function: str, context: "Context", inputs: Mapping[str, Any], run_id: str) -> tuple[Any, Any]:
    """The model and tokenizer that the action's function gives, saved where the function has not done so itself."""
    module, _, name = function.partition(":")
    os.environ["LAMDAGENT_RUN_ID"] = run_id
    try:
        model, tokenizer = getattr(importlib.import_module(module), name)(context, **inputs)
    finally:
        del os.environ["LAMDAGENT_RUN_ID"]
    if not (context.output / "config.json").exists():
        model.save_pretrained(context.output)
        tokenizer.save_pretrained(context.output)
    return model, tokenizer


def score(report: Report, *, folder: str, tasks: Sequence[Task], split: Split, batch_size: int, output: str) -> Outcome:
    """Score the model in `folder`; samples go to `output`/samples."""
    from lamdagent.actions.context import Context

    started, samples = time.monotonic(), Path(output) / "samples"
    if (options := _vllm(tasks)) is None:
        model, tokenizer = Context(output=Path(output), report=report).load(folder)
        scores = _evaluate(model, tokenizer, tasks, split, batch_size, report, samples)
    else:
        scores = _evaluate_folder(Path(folder), options, tasks, split, report, samples)
    return _outcome(report, scores, [], {"evaluation": time.monotonic() - started})


def _evaluate(
    model: Any, tokenizer: Any, tasks: Sequence[Task], split: Split, batch_size: int, report: Report, samples: Path
) -> dict[str, Score]:
    from lamdagent.evaluation.harness import evaluate

    try:
        return evaluate(model, tokenizer, tasks, split, report, samples, batch_size)
    except Exception as error:
        reason, kind = explain(error)
        if kind != "out_of_memory":
            raise
        advice = f"the evaluation ran out of memory: use a smaller evaluation.batch_size than {batch_size}"
        raise ActionFailed(f"{advice} ({reason})", kind) from error


def _vllm(tasks: Sequence[Task]) -> Mapping[str, Any] | None:
    """The options of vLLM if it is to score `tasks`: all or none, since one search has one backend."""
    return tasks[0].vllm if tasks else None


def _evaluate_folder(
    folder: Path, options: Mapping[str, Any], tasks: Sequence[Task], split: Split, report: Report, samples: Path
) -> dict[str, Score]:
    from lamdagent.evaluation.vllm_backend import evaluate_folder

    return evaluate_folder(str(folder), options, tasks, split, report, samples)


def _make_room(model: Any) -> None:
    """Take the model off the GPU: vLLM reserves its share at once."""
    import torch  # noqa: TID251 - this module runs in the worker

    model.cpu()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def gpus(report: Report) -> int:
    """How many GPUs a job here uses: what its seconds are multiplied by, also when it fails."""
    import torch  # noqa: TID251 - this module runs in the worker

    return int(torch.cuda.is_available())


def _outcome(
    report: Report,
    scores: Mapping[str, Score],
    curves: Sequence[Point],
    seconds: Mapping[str, float],
    processes: int = 1,
) -> Outcome:
    return Outcome(scores, tuple(curves), seconds, sum(seconds.values()) * gpus(report) * processes)
