"""Actions for end-to-end tests: a cheap one that works, and what can go wrong with a user's own; see tests/conf."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from lamdagent.actions.context import Context
from lamdagent.execution.progress import Progress

FOLDER = "STUNTS_FOLDER"
"""Environment variable: the folder with `block` (which call of `gated` waits; 0 = none), `ran` (its calls), `disk`."""


def nudge(context: Any, *, model: str, amount: float) -> Any:
    import torch

    network, tokenizer = context.load(model)
    generator = torch.Generator().manual_seed(context.seed)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(amount * weights.std() * torch.randn(weights.shape, generator=generator).to(weights.dtype))
    return network, tokenizer


def gated(context: Any, *, model: str, amount: float) -> Any:
    folder = Path(os.environ[FOLDER])
    with (folder / "ran").open("a") as file:
        file.write(f"{os.getpid()}\n")
    call = len((folder / "ran").read_text().split())
    if call == blocked(folder):
        context.report(Progress("blocked", 0, 1))
    while call == blocked(folder):
        time.sleep(0.05)
    return nudge(context, model=model, amount=amount)


def blocked(folder: Path) -> int:
    return int((folder / "block").read_text() or 0)


def writes(context: Any, *, model: str, amount: float) -> Any:
    """The test decides what `disk` leads to: a file, or a device that is always full."""
    (Path(os.environ[FOLDER]) / "disk").write_text("weights")
    return nudge(context, model=model, amount=amount)


def hoards(context: Any, *, model: str, amount: float) -> Any:
    mark = context.output.parents[2] / "hoarded"
    if not mark.exists():
        mark.touch()
        with contextlib.suppress(OSError), (context.output.parent / "junk").open("wb") as junk:
            while True:
                junk.write(bytes(1 << 12))
                junk.flush()
    return nudge(context, model=model, amount=amount)


class Narrow(Context):
    """Real training where more than a few rows at once are more than the memory holds; notes what was asked of it."""

    def load(self, folder: str) -> Any:
        import torch

        network, tokenizer = super().load(folder)
        notes = Path(os.environ[FOLDER]) / "batches"

        def enter(embedding: Any, arguments: Any) -> None:
            if not embedding.training:
                return
            rows = [[token for token in row if token != tokenizer.pad_token_id] for row in arguments[0].tolist()]
            with notes.open("a") as file:
                file.write(json.dumps(rows) + "\n")
            if len(rows) > int((Path(os.environ[FOLDER]) / "fits").read_text()):
                torch.empty(2**50)

        network.get_input_embeddings().register_forward_pre_hook(enter)
        return network, tokenizer


def narrow(context: Context, *, model: str, dataset: str, batch_size: int, micro_batch_size: int, steps: int) -> Any:
    from lamdagent.actions.sft import sft

    inputs = {"model": model, "dataset": dataset, "batch_size": batch_size, "micro_batch_size": micro_batch_size}
    return sft(Narrow(**vars(context)), **inputs, steps=steps, learning_rate=3e-3, max_length=64)


def raises(context: Any, *, model: str) -> Any:
    raise ValueError("the teacher is ill")


def exits(context: Any, *, model: str) -> Any:
    os._exit(7)


def hangs(context: Any, *, model: str) -> Any:
    while True:
        time.sleep(0.05)


def other(folder: Path) -> None:
    """Another initial model of the same family."""
    from lamdagent import pico

    pico.build(folder, seed=1)
