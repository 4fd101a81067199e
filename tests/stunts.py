"""Actions for end-to-end tests: a cheap one that works, and what can go wrong with a user's own; see tests/conf."""

import os
import time
from pathlib import Path
from typing import Any

from lamdagent.execution.executor import Progress

FOLDER = "STUNTS_FOLDER"
"""Environment variable: the folder with `block` (which call of `gated` waits until it says 0) and `ran` (its calls)."""


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
    if len((folder / "ran").read_text().split()) == int((folder / "block").read_text()):
        context.report(Progress("blocked", 0, 1))
        while int((folder / "block").read_text() or 0):
            time.sleep(0.05)
    return nudge(context, model=model, amount=amount)


def greedy(context: Any, *, model: str, amount: float, batch_size: int, micro_batch_size: int) -> Any:
    assert batch_size == 8
    (context.output.parent / "left over").mkdir(parents=True)
    if micro_batch_size > 2:
        bytearray(1 << 56)
    return nudge(context, model=model, amount=amount)


def raises(context: Any, *, model: str, amount: float = 0) -> Any:
    raise ValueError("the teacher is ill")


def exits(context: Any, *, model: str) -> Any:
    os._exit(7)


def hangs(context: Any, *, model: str) -> Any:
    while True:
        time.sleep(0.05)
