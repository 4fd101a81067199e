"""Does an action fit into the memory of the device? An estimate from sizes alone, before any weights are read.

Weights, gradients and Adam's two moments as in ZeRO (https://arxiv.org/abs/1910.02054, section 3), all in fp32 here;
activations by a count of what a Llama layer keeps, fitted to peaks that scripts/studies/measure_memory.py took.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from lamdagent.actions.action import ActionType
from lamdagent.actions.training import micro_batch
from lamdagent.config import Config
from lamdagent.devices import Capacity, capacity
from lamdagent.execution.disk import in_words
from lamdagent.objects.dataset import COLUMNS, Dataset
from lamdagent.objects.model_size import Shape, shape_of

FP32, BF16 = 4, 2
LIBRARIES = 550_000_000
"""Bytes of torch, transformers and TRL in a worker; a CUDA context takes about as much."""
KEPT = (15, 4)
"""Numbers that a layer keeps of a token for the backward pass: so many times the hidden and the intermediate width."""
KEPT_BY_LORA = (6, 4)
"""The same of what an adapter keeps besides, in fp32."""
TILE = (4096, 8192)
"""Most tokens and most of the vocabulary whose logits TRL holds at once."""
LETTERS_PER_TOKEN = 4
OURS = "lamdagent.actions."
"""Functions elsewhere may do anything: nothing is said of them."""
TRAINING = {"batch_size", "micro_batch_size", "max_length", "lora_rank"}
PACKED = ("lamdagent.actions.sft:sft_packed",)
"""Sequences are as long as `max_length`, however short the rows."""
WITH_REFERENCE = ("lamdagent.actions.preference:dpo",)

Parts = Mapping[str, int]
"""What takes memory -> bytes."""


@dataclass(frozen=True)
class Setting:
    """One training's hyperparameters, as far as memory depends on them."""

    rank: int
    """0 = all weights are trained."""
    lora_layers: int
    tokens: int
    """In memory at once: rows of the micro-batch, each with its completions, times their length."""
    reference: bool
    """A second copy of the model is held, as it was."""


def training(shape: Shape, setting: Setting, gpu: bool) -> Parts:
    """The bytes of one training process at its peak."""
    trained = shape.adapter(setting.rank, setting.lora_layers) if setting.rank else shape.parameters
    mixed = gpu or (setting.rank and shape.stored == BF16)
    layer = _numbers(shape, KEPT) * (BF16 if mixed else FP32)
    layer += _numbers(shape, KEPT_BY_LORA) * FP32 if setting.rank else 0
    # On a GPU only the layers' inputs are kept, and one layer at a time is computed again.
    kept = shape.layers * shape.hidden * BF16 + layer if gpu else shape.layers * layer
    return {
        "weights": shape.parameters * shape.stored + trained * FP32 if setting.rank else shape.parameters * FP32,
        "gradients": trained * FP32,
        "optimizer": trained * 2 * FP32,
        "the reference model": shape.parameters * FP32 if setting.reference else 0,
        "activations": setting.tokens * kept,
        "logits": min(setting.tokens, TILE[0]) * min(shape.vocabulary, TILE[1]) * FP32,
        "libraries": LIBRARIES,
    }


def merging(shape: Shape, models: int) -> Parts:
    """The bytes of a merge of so many models: mergekit goes tensor by tensor and writes the result at its end."""
    largest = max(shape.vocabulary, shape.intermediate) * shape.hidden
    return {
        "the new weights": shape.parameters * shape.stored,
        "the largest tensor of each model": 2 * models * largest * FP32,
        "libraries": LIBRARIES,
    }


def memory_faults(
    config: Config, types: Sequence[ActionType], datasets: Sequence[Dataset]
) -> tuple[list[str], list[str]]:
    """Action types that fit with no initial model, and those that do not fit with some: each a sentence.

    A model whose size is not known fits.
    """
    ours = [t for t in types if t.function.startswith(OURS)]
    room = capacity(config.execution) if ours else None
    shapes = {name: shape_of(dataclasses.asdict(model)) for name, model in config.models.items()}
    never: list[str] = []
    sometimes: list[str] = []
    for action_type in ours if room else ():
        assert room is not None
        told = {name: _too_much(action_type, shape, room, datasets) for name, shape in shapes.items() if shape}
        bad = {name: why for name, why in told.items() if why}
        if bad:
            (never if len(bad) == len(shapes) else sometimes).append(
                f"actions.{action_type.name}: {'; '.join(f'with models.{name} {why}' for name, why in bad.items())}"
            )
    return never, sometimes


def _too_much(action_type: ActionType, shape: Shape, room: Capacity, datasets: Sequence[Dataset]) -> str:
    """What it takes at least and what there is; empty when it fits."""
    parts = least(action_type, shape, room.gpu)
    # Only then it is worth to look how long the rows really are.
    if sum(parts.values()) > room.bytes and action_type.function not in PACKED:
        parts = least(action_type, shape, room.gpu, _longest(action_type, datasets))
    whole = sum(parts.values())
    if whole <= room.bytes:
        return ""
    named = ", ".join(f"{in_words(size)} {what}" for what, size in parts.items() if size * 50 > whole)
    return f"about {in_words(whole)} are needed ({named}) of {in_words(room.bytes)} that {room.what} has"


def least(action_type: ActionType, shape: Shape, gpu: bool, longest: int | None = None) -> Parts:
    """What the type takes with the thriftiest of its settings; `longest`: tokens of the longest row, if known."""
    if not TRAINING <= set(action_type.grid):
        models = [slot.minimum for slot in action_type.slots if slot.holds_models]
        return merging(shape, sum(models)) if action_type.takes_several_models else {}
    processes = action_type.processes
    completions = 2 if any(slot.kind == "preference" for slot in action_type.slots) else 1
    keys = ("lora_rank", "batch_size", "micro_batch_size", "max_length", "lora_layers")
    found = []
    for rank, batch, micro, length, layers in product(*(_sizes(action_type, key) for key in keys)):
        rows = micro_batch(max(1, batch // processes), micro)
        tokens = rows * completions * min(length, longest or length)
        setting = Setting(rank, layers, tokens, action_type.function in WITH_REFERENCE and not rank)
        found.append(training(shape, setting, gpu))
    parts = min(found, key=lambda parts: sum(parts.values()))
    shared = 1 if gpu else processes  # each process has a GPU of its own, but all share this machine
    return {what: size * shared for what, size in parts.items()}


def _sizes(action_type: ActionType, key: str) -> list[int]:
    return [int(value) for value in action_type.grid.get(key, (0,))]


def _numbers(shape: Shape, times: tuple[int, int]) -> int:
    return times[0] * shape.hidden + times[1] * shape.intermediate


def _longest(action_type: ActionType, datasets: Sequence[Dataset]) -> int | None:
    """About how many tokens the longest row has, of the dataset whose longest is the shortest."""
    kinds = {slot.kind for slot in action_type.slots}
    lengths = [_letters(d.path, COLUMNS[d.kind]) for d in datasets if d.kind in kinds]
    return min(lengths) // LETTERS_PER_TOKEN if lengths else None


def _letters(path: str, columns: Sequence[str]) -> int:
    """Of the longest row: its first column, and the longest of the others."""
    longest = 0
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            first, *others = [_length(row[column]) for column in columns]
            longest = max(longest, first + max(others, default=0))
    return longest


def _length(cell: Any) -> int:
    return len(cell) if isinstance(cell, str) else sum(len(str(message.get("content"))) for message in cell)
