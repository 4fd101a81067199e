"""Does an action fit into the memory of the device? An estimate from sizes alone, before any weights are read.

Weights, gradients and Adam's two moments as in ZeRO (https://arxiv.org/abs/1910.02054, section 3), all in fp32 here;
activations by a count of what a Llama layer keeps, fitted to peaks that scripts/studies/measure_memory.py took.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from lamdagent.actions.action import ActionType
from lamdagent.actions.merge_methods import merges
from lamdagent.actions.methods import Method, method_of
from lamdagent.actions.recipe import micro_batch
from lamdagent.config import Config
from lamdagent.devices import Capacity, capacity
from lamdagent.execution.disk import in_words
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.kinds import dataset_kind
from lamdagent.objects.model_size import ModelSize, size_of_source

FP32, BF16 = 4, 2
NF4 = 0.53
"""Bytes of a weight in 4 bits, its share of the scales included."""
LIBRARIES = 550_000_000
"""Bytes of torch, transformers and TRL in a worker; a CUDA context takes about as much."""
KEPT = (15, 4)
"""Numbers that a layer keeps of a token for the backward pass: so many times the hidden and the intermediate width."""
KEPT_BY_LORA = (6, 4)
"""The same of what an adapter keeps besides, in fp32."""
TILE = (4096, 8192)
"""Most tokens and most of the vocabulary whose logits TRL holds at once."""
DRAWN = 4
"""Copies of the logits of its last token that a sequence has while the next token is drawn."""
LETTERS_PER_TOKEN = 4

Parts = Mapping[str, int]
"""Part of the memory -> bytes."""


@dataclass(frozen=True)
class Setting:
    """One training's hyperparameters, as far as memory depends on them."""

    rank: int = 0
    """0 = all weights are trained."""
    lora_layers: int = 0
    tokens: int = 0
    """In memory at once in a training step: sequences times their length."""
    reference: bool = False
    """A second copy of the model is held, as it was."""
    quantized: bool = False
    """The frozen weights are held in 4 bits."""
    teacher: int = 0
    """Bytes of the weights of a teacher."""
    answers: int = 0
    """Generated together; 0 = nothing is generated."""
    length: int = 0
    """Tokens of a prompt with its answer."""
    alone: bool = False
    """Answers are generated before the training, with the weights alone in memory."""


def peak(size: ModelSize, setting: Setting, gpu: bool) -> Parts:
    """The bytes of one training process at its peak: in a training step, or while answers are generated."""
    return max((training(size, setting, gpu), generating(size, setting, gpu)), key=_whole)


def training(size: ModelSize, setting: Setting, gpu: bool) -> Parts:
    """The bytes of one training process in a training step."""
    mixed = gpu or (setting.rank and size.stored == BF16)
    layer = _numbers(size, KEPT) * (BF16 if mixed else FP32)
    layer += _numbers(size, KEPT_BY_LORA) * FP32 if setting.rank else 0
    # On a GPU only the layers' inputs are kept, and one layer at a time is computed again.
    kept = size.layers * size.hidden * BF16 + layer if gpu else size.layers * layer
    logits = min(setting.tokens, TILE[0]) * min(size.vocabulary, TILE[1]) * FP32
    return _held(size, setting) | {
        "gradients": _trained(size, setting) * FP32,
        "activations": setting.tokens * kept,
        "logits": logits * (2 if setting.teacher else 1),
        "libraries": LIBRARIES,
    }


def generating(size: ModelSize, setting: Setting, gpu: bool) -> Parts:
    """The bytes of one training process while it generates; of the gradients nothing is left then."""
    if not setting.answers:
        return {}
    frozen = setting.rank or setting.alone
    number = BF16 if gpu and not setting.alone else size.stored if frozen else FP32
    held = {"weights": size.parameters * size.stored} if setting.alone else _held(size, setting)
    return held | {
        "keys and values of answers": setting.answers * setting.length * size.layers * size.cached * number,
        "logits": setting.answers * size.vocabulary * FP32 * DRAWN,
        "libraries": LIBRARIES,
    }


def _held(size: ModelSize, setting: Setting) -> dict[str, int]:
    """Memory that is held from the first step to the last: part -> bytes."""
    trained = _trained(size, setting)
    frozen = _in_4_bits(size) if setting.quantized else size.parameters * size.stored
    return {
        "weights": frozen + trained * FP32 if setting.rank else size.parameters * FP32,
        "optimizer": trained * 2 * FP32,
        "the reference model": size.parameters * FP32 if setting.reference else 0,
        "the teacher": setting.teacher,
    }


def _trained(size: ModelSize, setting: Setting) -> int:
    return size.adapter(setting.rank, setting.lora_layers) if setting.rank else size.parameters


def _in_4_bits(size: ModelSize) -> int:
    """The embedding keeps its precision."""
    embedding = size.vocabulary * size.hidden
    return embedding * BF16 + int((size.parameters - embedding) * NF4)


def merging(size: ModelSize, models: int) -> Parts:
    """The bytes of a merge of so many models: mergekit goes tensor by tensor and writes the result at its end."""
    largest = max(size.vocabulary, size.intermediate) * size.hidden
    return {
        "the new weights": size.parameters * size.stored,
        "the largest tensor of each model": 2 * models * largest * FP32,
        "libraries": LIBRARIES,
    }


def memory_faults(
    config: Config, types: Sequence[ActionType], datasets: Sequence[Dataset]
) -> tuple[list[str], list[str]]:
    """Action types that fit with no initial model, and those that do not fit with some: each a sentence.

    A model whose size is not known fits.
    """
    ours = [t for t in types if method_of(t.function) or merges(t.function)]  # others may do anything
    room = capacity(config.execution) if ours else None
    sizes = {name: size_of_source(dataclasses.asdict(model)) for name, model in config.models.items()}
    never: list[str] = []
    sometimes: list[str] = []
    for action_type in ours if room else ():
        assert room is not None
        known = [size for size in sizes.values() if size]
        told = {n: _too_much(action_type, size, room, datasets, known) for n, size in sizes.items() if size}
        bad = {name: why for name, why in told.items() if why}
        if bad:
            (never if len(bad) == len(sizes) else sometimes).append(
                f"actions.{action_type.name}: {'; '.join(f'with models.{name} {why}' for name, why in bad.items())}"
            )
    return never, sometimes


def _too_much(
    action_type: ActionType, size: ModelSize, room: Capacity, datasets: Sequence[Dataset], models: Sequence[ModelSize]
) -> str:
    """The fault, with the memory needed at least and the memory there is; empty when it fits."""
    method = method_of(action_type.function)
    teacher = _smallest_teacher(size, models) if method and method.teacher else 0
    # Of prompts, nothing else says how long they are.
    longest = _longest(method, datasets) if method and method.generates else None
    parts = least(action_type, size, room.gpu, longest, teacher)
    # Only then it is worth to look how long the rows really are.
    if _whole(parts) > room.bytes and method and not method.packed and longest is None:
        parts = least(action_type, size, room.gpu, _longest(method, datasets), teacher)
    whole = _whole(parts)
    if whole <= room.bytes:
        return ""
    named = ", ".join(f"{in_words(size)} {what}" for what, size in parts.items() if size * 50 > whole)
    return f"about {in_words(whole)} are needed ({named}) of {in_words(room.bytes)} that {room.what} has"


def least(action_type: ActionType, size: ModelSize, gpu: bool, longest: int | None = None, teacher: int = 0) -> Parts:
    """Memory that the type takes with the thriftiest of its settings: part -> bytes.

    Args:
        action_type: a training that `method_of` knows, or a merge.
        size: of its first model.
        gpu: whether it runs on one.
        longest: tokens of the longest row, if known.
        teacher: bytes of the weights of the smallest teacher.
    """
    method = method_of(action_type.function)
    if method is None:
        models = [slot.minimum for slot in action_type.slots if slot.holds_models]
        return merging(size, sum(models))
    settings = _settings(action_type, method, longest)
    found = (peak(size, dataclasses.replace(setting, teacher=teacher), gpu) for setting in settings)
    shared = 1 if gpu else action_type.processes  # each process has a GPU of its own, but all share this machine
    return {what: bytes_ * shared for what, bytes_ in min(found, key=_whole).items()}


def _settings(action_type: ActionType, method: Method, longest: int | None) -> Iterator[Setting]:
    """Every setting of the grid."""
    keys = ["lora_rank", "lora_layers", "batch_size", "micro_batch_size", "max_length", "beta"]
    keys += [method.generates.at_once, method.generates.length] if method.generates else []
    for values in product(*(action_type.grid.get(key, (0,)) for key in keys)):
        given = {key: float(value) for key, value in zip(keys, values, strict=True)}
        yield _setting(given, method, action_type.processes, longest)


def _setting(given: Mapping[str, float], method: Method, processes: int, longest: int | None) -> Setting:
    rank, most = int(given["lora_rank"]), int(given["max_length"])
    drawn = method.generates
    length = int(given[drawn.length]) + (longest or 0) if drawn else longest or most
    share = max(1, int(given["batch_size"]) // processes)
    held = method.reference == "given" or (method.reference == "beta" and given["beta"] != 0)
    sequences = micro_batch(share, int(given["micro_batch_size"]), method.least) * method.rows
    together = (int(given[drawn.at_once]) if drawn.alone else share) if drawn else 0
    return Setting(
        rank=rank,
        lora_layers=int(given["lora_layers"]),
        tokens=sequences * (most if method.packed else min(length, most or length)),
        reference=held and not rank,
        quantized=method.quantized,
        answers=together,
        length=length,
        alone=bool(drawn and drawn.alone),
    )


def _smallest_teacher(size: ModelSize, models: Sequence[ModelSize]) -> int:
    """Bytes of the smallest model with as many tokens: it, or what was made of it, can teach."""
    return min(m.parameters * m.stored for m in (size, *models) if m.vocabulary == size.vocabulary)


def _numbers(size: ModelSize, times: tuple[int, int]) -> int:
    return times[0] * size.hidden + times[1] * size.intermediate


def _whole(parts: Parts) -> int:
    return sum(parts.values())


def _longest(method: Method, datasets: Sequence[Dataset]) -> int | None:
    """About how many tokens the longest row has, of the dataset whose longest is the shortest."""
    lengths = [_letters(d.path, d.kind) for d in datasets if d.kind == method.kind]
    return min(lengths) // LETTERS_PER_TOKEN if lengths else None


@functools.lru_cache
def _letters(path: str, kind: str) -> int:
    """Letters of the longest row."""
    with open(path, encoding="utf-8") as file:
        return max((dataset_kind(kind).letters(json.loads(line)) for line in file), default=0)
