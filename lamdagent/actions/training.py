"""What our TRL trainers share: the training as a value, its arguments, and the run."""

import copy
import dataclasses
import gc
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lamdagent.actions.context import Context, Loaded
from lamdagent.actions.distributed import in_processes
from lamdagent.actions.methods import Method
from lamdagent.errors import ActionFailed
from lamdagent.execution.progress import Progress
from lamdagent.libraries import known_warnings_ignored
from lamdagent.objects.kinds import dataset_kind
from lamdagent.rewards.mix import Term

QUANTIZATION: Mapping[str, Any] = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}
"""Arguments of transformers' BitsAndBytesConfig, as in QLoRA (https://arxiv.org/abs/2305.14314, section 3)."""


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
    """What a trainer's arguments ask of the machine; in a script, expressions stand here instead of values."""

    gpu: Any
    cpu: Any
    bf16: Any
    """Mixed precision in bf16."""


def device_here() -> Device:
    """What this machine has."""
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


@dataclass(frozen=True)
class Training:
    """One TRL trainer run from a folder and rows to a full model in the precision it had; LoRA ends up merged."""

    method: Method
    """Which trainer, and what it holds beside the model."""
    model: str
    """Folder."""
    dataset: str
    """JSONL file."""
    recipe: Recipe
    options: Mapping[str, Any]
    """Arguments that only this method's configuration has."""
    further_columns: tuple[str, ...] = ()
    """What the trainer reads of each row besides the columns of the method's kind of data."""
    prepare: Callable[[list[dict[str, Any]], int], list[dict[str, Any]]] | None = None
    """From the dataset's rows and the seed to the trainer's rows; stands in the scripts of rebuild/ as source text."""
    teacher: str = ""
    """Folder of a second model that the trainer takes; empty for none."""
    rewards: tuple[Term, ...] = ()
    """What the trainer rewards answers with; their weights are among `options`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What the trainer reads of each row; the optional ones of its kind too, where a row has them."""
        return (*self.method.columns, *self.further_columns)

    @property
    def every_column(self) -> tuple[str, ...]:
        """`columns` and the optional ones."""
        return (*self.columns, *dataset_kind(self.method.kind).optional)

    @property
    def needs_reference(self) -> bool:
        """Whether a second model has to be loaded: with LoRA the policy itself, the adapter off, is the reference."""
        return self.method.reference == "given" and not self.recipe.lora_rank

    @property
    def to_trl(self) -> Callable[[list[dict[str, Any]], int], list[dict[str, Any]]] | None:
        """From the dataset's rows and the seed to the trainer's rows; None = they are the same."""
        return self.prepare or dataset_kind(self.method.kind).to_trl

    def run(self, context: Context) -> Loaded:
        """Train, in the processes of `context.accelerate` if there are any.

        Raises:
            ActionFailed: the loss or a gradient is not a number, memory ran out, a column is missing, or no row has a
                token to learn from; student and teacher write in other tokens; bitsandbytes is not installed.
        """
        if context.accelerate:
            return in_processes(self, context)
        policy, tokenizer = context.load(self.model)
        configs, dtype = copy.deepcopy((policy.config, policy.generation_config)), policy.dtype
        if self.method.quantized:
            policy = quantized_model(self.model)
        elif not self.recipe.lora_rank:
            policy.float()  # steps of a small learning rate vanish in bf16 weights
        rows = self._rows(context)
        settings = arguments(
            self.recipe, context.seed, str(context.output), device_here(), context.processes, self.method.least
        )
        further = self._further(context, tokenizer)
        with known_warnings_ignored(), _compact_loss(), _out_of_memory_explained(self, context.processes):
            trainer_class, config_class = self.method.load()
            trainer = trainer_class(
                model=policy,
                args=config_class(**settings, **self.options),
                train_dataset=rows,
                processing_class=tokenizer,
                peft_config=self._adapter(policy),
                **further,
            )
            _listen(context, trainer)
            if not len(trainer.train_dataset):
                reason = f"No row of {self.dataset} has a token to learn from within max_length"
                raise ActionFailed(f"{reason}={self.recipe.max_length}.", kind="bad_data")
            trainer.train()
        trained = self._merged(trainer.model, context)
        del trainer
        gc.collect()  # trainer and optimizer refer to each other, and their memory is wanted for the evaluation
        return restored(trained, *configs, dtype).eval(), context.tokenizer(self.model)

    def _rows(self, context: Context) -> Any:
        """What the trainer gets, a `datasets.Dataset`."""
        rows = context.rows(self.dataset, self.every_column)
        if missing := [column for column in self.columns if column not in rows.column_names]:
            has = ", ".join(rows.column_names)
            reason = f"{self.dataset} has no column {', '.join(missing)}, which {self.method.title} needs; it has {has}"
            raise ActionFailed(reason, kind="bad_data")
        return type(rows).from_list(self.to_trl(rows.to_list(), context.seed)) if self.to_trl else rows

    def _further(self, context: Context, tokenizer: Any) -> dict[str, Any]:
        """What only some trainers take."""
        if self.needs_reference:
            return {"ref_model": context.load(self.model)[0].float().eval()}
        if self.teacher:
            teacher, its_tokenizer = context.load(self.teacher)
            if its_tokenizer.get_vocab() != tokenizer.get_vocab():
                reason = f"{self.model} cannot learn from {self.teacher}: their tokenizers have other tokens"
                raise ActionFailed(reason, kind="mismatch")
            return {"teacher_model": teacher.eval()}
        return {"reward_funcs": [term.load() for term in self.rewards]} if self.rewards else {}

    def _adapter(self, policy: Any) -> Any:
        if not self.recipe.lora_rank:
            return None
        from peft import LoraConfig

        layers = last_layers(policy, self.recipe.lora_layers)
        return LoraConfig(**adapter(self.recipe, linear_layers(policy), layers))

    def _merged(self, model: Any, context: Context) -> Any:
        if not self.recipe.lora_rank:
            return model
        if context.adapter:
            model.save_pretrained(context.adapter)
            (context.adapter / "README.md").unlink(missing_ok=True)  # peft's empty form
        return self._merged_into_whole(model, context) if self.method.quantized else model.merge_and_unload()

    def _merged_into_whole(self, model: Any, context: Context) -> Any:
        """The adapter in the weights as they were: merged into 4 bits, it would be rounded away."""
        from peft import PeftModel

        with tempfile.TemporaryDirectory() as folder, known_warnings_ignored():
            model.save_pretrained(folder)
            whole = context.load(self.model)[0]
            return PeftModel.from_pretrained(whole, folder).merge_and_unload()


def quantized_model(folder: str) -> Any:
    """The model in 4 bits, on the GPU if there is one; elsewhere bitsandbytes works too, but saves no time.

    Raises:
        ActionFailed: bitsandbytes is not installed.
    """
    import torch
    import transformers

    library: Any = transformers
    try:
        settings = library.BitsAndBytesConfig(**QUANTIZATION)
        place = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
        return library.AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=settings, device_map=place, local_files_only=True, use_safetensors=True
        )
    except ImportError as error:
        advice = "pip install 'lamdagent[qlora]', or use the LoRA action of the same method instead"
        raise ActionFailed(f"QLoRA needs bitsandbytes ({error}): {advice}.", kind="error") from error


# The next three functions also stand, word for word, in the scripts of rebuild/: nothing of this package in them.


def linear_layers(model: Any) -> list[str]:
    """Names of every linear layer but the head; peft's own "all-linear" cannot be combined with chosen layers."""
    import torch

    head = model.get_output_embeddings()
    found = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part is not head]
    return sorted({name.rsplit(".", 1)[-1] for name in found})


def last_layers(model: Any, count: int) -> list[int] | None:
    """Numbers of the last `count` layers; None, meaning all, for 0."""
    layers = model.config.get_text_config().num_hidden_layers
    return list(range(max(0, layers - count), layers)) if count else None


def restored(model: Any, config: Any, generation_config: Any, dtype: Any) -> Any:
    """The trained weights as a plain model again: trainers patch its forward and rewrite its token ids."""
    vars(model).pop("forward", None)
    model.activation_checkpointing_disable()
    model.config, model.generation_config = config, generation_config
    return model.to(dtype)


def _listen(context: Context, run: Any) -> None:
    """Report every step, print nothing, stop at the first figure that is not a number."""
    from transformers import PrinterCallback, TrainerCallback

    class Listener(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            figures = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, int | float)}
            if "loss" not in figures:
                return  # the summary at the end
            for key in ("loss", "grad_norm"):
                if not math.isfinite(figures.get(key, 0.0)):
                    reason = f"The {key} became {figures[key]} at step {state.global_step} of {state.max_steps}"
                    raise ActionFailed(f"{reason}: a smaller learning rate may help.", kind="nan_loss")
            context.report(Progress("train", state.global_step, state.max_steps, figures))

    run.remove_callback(PrinterCallback)
    run.add_callback(Listener())


@contextmanager
def _compact_loss() -> Iterator[None]:
    """Let TRL compute logits of answer tokens only on a CPU too, where it does so only with Triton."""
    import torch
    from trl.trainer import utils

    before = vars(utils).get("_use_triton")
    if before is None or torch.cuda.is_available():
        yield
        return
    vars(utils)["_use_triton"] = lambda device: True  # read in one place: which positions to score
    try:
        yield
    finally:
        vars(utils)["_use_triton"] = before


@contextmanager
def _out_of_memory_explained(step: Training, processes: int) -> Iterator[None]:
    import torch

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        rows, longest = step.recipe.micro(processes, step.method.least), step.recipe.max_length
        length = f" of up to {longest} tokens" if longest else ""
        reason = f"Out of memory at {rows} rows{length} at once: {error}"
        raise ActionFailed(reason, kind="out_of_memory") from error
