"""The hyperparameters that every trainer has, and the arguments of TRL and peft that they become."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters that every trainer has."""

    learning_rate: float
    steps: int
    """Optimizer steps; 0 = as many as `epochs` need."""
    epochs: float
    """Passes over the rows; only read when `steps` is 0."""
    batch_size: int
    """Rows per optimizer step."""
    micro_batch_size: int
    """Most rows at once in memory; the result hardly depends on it."""
    max_length: int
    """Tokens; longer rows are cut at their end. 0 = the method has no such limit."""
    warmup: float
    """Share of the steps over which the learning rate rises."""
    lora_rank: int
    """0 = all weights are trained."""
    lora_alpha: int
    """The adapter's scale is alpha / rank."""
    lora_layers: int
    """Only the last so many layers get an adapter; 0 = all."""

    @classmethod
    def among(cls, values: Mapping[str, Any], **others: Any) -> "Recipe":
        """The recipe in an action function's `locals()`; what the function has no parameter for is in `others`."""
        named = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in named}, **others)

    def micro(self, processes: int = 1, least: int = 1) -> int:
        """The largest divisor of a process's share of the batch up to `micro_batch_size`: the batch is exact."""
        return micro_batch(self.batch_size // processes, self.micro_batch_size, least)


def micro_batch(batch_size: int, most: int, least: int = 1) -> int:
    """The largest divisor of `batch_size` up to `most`; where none is `least` or more, the smallest that is."""
    divisors = [size for size in range(1, batch_size + 1) if batch_size % size == 0]
    fitting = [size for size in divisors if least <= size <= most]
    return max(fitting) if fitting else min((size for size in divisors if size >= least), default=batch_size)


@dataclass(frozen=True)
class Device:
    """Facts of the device that a trainer's arguments need; in a script, expressions stand here instead of values."""

    gpu: Any
    cpu: Any
    bf16: Any
    """Mixed precision in bf16."""


def device_here() -> Device:
    """The device of this machine."""
    import torch

    gpu = torch.cuda.is_available()
    return Device(gpu, not gpu, gpu and torch.cuda.is_bf16_supported())


def arguments(
    recipe: Recipe, seed: int, output: str, device: Device, processes: int = 1, least: int = 1
) -> dict[str, Any]:
    """The recipe as keyword arguments of any TRL configuration class, in each of so many processes.

    `least` is the fewest rows at once that the method can do with.
    """
    micro = recipe.micro(processes, least)
    return {
        "output_dir": output,
        "learning_rate": recipe.learning_rate,
        "max_steps": recipe.steps or -1,
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": recipe.batch_size // (micro * processes),
        **({"max_length": recipe.max_length} if recipe.max_length else {}),
        "warmup_steps": recipe.warmup,
        "seed": seed,
        "use_cpu": device.cpu,
        # On a CPU, autocast costs LoRA on bf16 weights a fifth of its speed and makes full steps noisier.
        "bf16": device.bf16,
        "activation_checkpointing": device.gpu,
        "gradient_checkpointing": None,
        "dataloader_pin_memory": device.gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def adapter(recipe: Recipe, targets: Any, layers: Any) -> dict[str, Any]:
    """The recipe as keyword arguments of peft's LoraConfig; `targets`, `layers`: which modules get an adapter."""
    return {
        "r": recipe.lora_rank,
        "lora_alpha": recipe.lora_alpha,
        "target_modules": targets,
        "layers_to_transform": layers,
        "task_type": "CAUSAL_LM",
    }
