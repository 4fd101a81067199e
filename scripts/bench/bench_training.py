#!/usr/bin/env python
"""Trained tokens a second of supervised fine-tuning against a plain `SFTTrainer`: same model, rows, steps and batch.

    .venv/bin/python scripts/bench/bench_training.py                                 a pico model: a quick look
    .venv/bin/python scripts/bench/bench_training.py --model smollm2 --steps 8       135M parameters, LoRA on all layers
    .venv/bin/python scripts/bench/bench_training.py --model smollm2 --steps 8 --full    all weights

Three ways in one warm process, from a folder to the trained weights in memory (no imports, nothing saved). `defaults`:
`SFTTrainer(model=<folder>, ...)` told model, rows, steps, batch, rate and length, else left to TRL's defaults, which
are made for GPUs (float32 weights, bf16 autocast, activations computed twice). `told`: the same trainer told all that
ours tells it (bf16 weights beside LoRA, no autocast, activations kept). `ours`: the action of a search. The tokens are
those of the rows that were trained on. The losses of all three are printed. The last line is one JSON object with the
figures; `loss_off` is the largest difference of a step's loss to that of `told`.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from in_turn import Ratio, Row, Worker, action, base_of, first, in_turn, parser, planned, rows_file, show

from lamdagent.actions.networks import last_layers, linear_layers
from lamdagent.actions.recipe import adapter, arguments, device_here
from lamdagent.actions.training import Training
from lamdagent.execution.progress import Progress, Report
from lamdagent.export.folder import RecordingContext

SIZES = ("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "max_length")
RATE = ("learning_rate", "warmup_steps", "seed")
"""SIZES and RATE: what anybody tells a trainer, besides where to write and what to print."""
SILENT = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, "use_cpu": True}


@dataclass(frozen=True)
class Done:
    """One training."""

    seconds: float
    losses: Sequence[float]
    """Of each step."""
    tokens: int
    """Trained on, padding left out."""


def ours(report: Report, *, function: str, values: Mapping[str, Any], rows: str) -> Done:
    """The action of a search, in the worker."""
    from lamdagent.actions.context import Context

    losses, tokens = [], [0]

    def follow(progress: Progress) -> None:
        losses.append(progress.metrics["loss"])
        tokens.append(int(progress.metrics["num_tokens"]))

    module, _, name = function.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        getattr(import_module(module), name)(Context(Path(folder), report=follow), **values)
        return Done(time.monotonic() - started, losses, tokens[-1])


def defaults(report: Report, *, function: str, values: Mapping[str, Any], rows: str) -> Done:
    """A trainer that is told the least, in the worker."""
    step = _step(function, values)
    every = arguments(step.recipe, 0, "", device_here())
    return _plain(step, step.model, {name: every[name] for name in SIZES + RATE} | SILENT, "all-linear", rows)


def told(report: Report, *, function: str, values: Mapping[str, Any], rows: str) -> Done:
    """A trainer that is told what ours is told, in the worker."""
    step = _step(function, values)
    return _plain(step, None, arguments(step.recipe, 0, "", device_here()) | dict(step.options), None, rows)


def _step(function: str, values: Mapping[str, Any]) -> Training:
    module, _, name = function.partition(":")
    noted: Training = getattr(import_module(module), name)(RecordingContext(Path()), **values)[0]
    return noted


def _plain(step: Training, model: Any, settings: dict[str, Any], targets: str | None, file: str) -> Done:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from lamdagent.libraries import known_warnings_ignored, quiet

    quiet()
    rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder, known_warnings_ignored():
        started = time.monotonic()
        if model is None:
            model = AutoModelForCausalLM.from_pretrained(step.model, dtype="auto")
            model = model if step.recipe.lora_rank else model.float()
        layers = None if targets else last_layers(model, step.recipe.lora_layers)
        lora = adapter(step.recipe, targets or linear_layers(model), layers)
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**settings | {"output_dir": folder}),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(step.model),
            peft_config=LoraConfig(**lora) if step.recipe.lora_rank else None,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if step.recipe.lora_rank:
            trainer.model.merge_and_unload()
        seconds = time.monotonic() - started
    logged = [log for log in trainer.state.log_history if "loss" in log]
    return Done(seconds, [log["loss"] for log in logged], int(logged[-1]["num_tokens"]))


def _timed(worker: Worker, way: str, given: Mapping[str, Any], number: int) -> Done:
    return worker.call(f"bench_training:{way}", **given)  # type: ignore[no-any-return]


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--full", action="store_true", help="all weights are trained, not an adapter")
    chosen = options.parse_args()
    plan = planned(chosen.model, *chosen.set)
    base = base_of(plan)
    function, values = action(plan, "sft", {"model": base, "dataset": first(plan, "sft")})
    full = {"lora_rank": 0, "learning_rate": 1e-4} if chosen.full else {"lora_rank": 16, "lora_alpha": 32}
    values |= {"steps": chosen.steps, **full}
    with tempfile.TemporaryDirectory(prefix="bench-training-") as folder, closing(Worker()) as worker:
        rows = rows_file(values["dataset"], ("prompt", "completion"), Path(folder) / "rows.jsonl")
        given = {"function": function, "values": values, "rows": rows}
        worker.call("bench_training:told", **{**given, "values": {**values, "steps": 1}})  # first calls
        ways = ("defaults", "told", "ours")
        done = in_turn(chosen.pairs, {way: partial(_timed, worker, way, given) for way in ways})
    rates = {way: [one.tokens / one.seconds for one in found] for way, found in done.items()}
    table = [
        Row(
            "ratio",
            "tokens/s, ours / SFTTrainer with its defaults",
            Ratio.of(rates["ours"], rates["defaults"]),
            ">= 1.3",
        ),
        Row("ratio_told", "tokens/s, ours / told what ours is told", Ratio.of(rates["ours"], rates["told"]), ""),
    ]
    losses = {way: found[0].losses for way, found in done.items()}
    for way, each in losses.items():
        print(f"loss of {way}: {' '.join(f'{loss:.3f}' for loss in each)}")
    figures = {"model": chosen.model, "pairs": chosen.pairs, "steps": chosen.steps, "full": chosen.full}
    figures |= {f"tokens_per_second_{way}": round(statistics.median(each), 1) for way, each in rates.items()}
    figures |= {"tokens": {way: found[0].tokens for way, found in done.items()}, "losses": losses}
    off = {way: max(abs(a - b) for a, b in zip(each, losses["told"], strict=True)) for way, each in losses.items()}
    figures["loss_off"] = {way: round(value, 5) for way, value in off.items()}
    show(f"{chosen.model}: {chosen.steps} steps of supervised fine-tuning", table, figures)


if __name__ == "__main__":
    main()
