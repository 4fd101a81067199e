"""Actions for end-to-end tests: a cheap one that works, and what can go wrong with a user's own; see tests/conf."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from lamdagent.execution.executor import Progress

FOLDER = "STUNTS_FOLDER"
"""Environment variable: the folder with `block` (which call of `gated` never ends; 0 = none) and `ran` (its calls)."""


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
        threading.Event().wait()
    return nudge(context, model=model, amount=amount)


def raises(context: Any, *, model: str) -> Any:
    raise ValueError("the teacher is ill")


def exits(context: Any, *, model: str) -> Any:
    os._exit(7)


def hangs(context: Any, *, model: str) -> Any:
    while True:
        time.sleep(0.05)
