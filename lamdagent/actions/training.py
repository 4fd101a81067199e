"""What our TRL trainers share: one trainer run from a folder and rows to a full model in the precision it had."""

import copy
import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lamdagent.actions.context import Context, Loaded, known_warnings_ignored
from lamdagent.errors import ActionFailed
from lamdagent.execution.executor import Progress


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
    """Tokens; longer rows are cut at their end."""
    warmup: float
    """Share of the steps over which the learning rate rises."""
    lora_rank: int
    """0 = all weights are trained."""
    lora_alpha: int
    """The adapter's scale is alpha / rank."""
    lora_layers: int
    """Only the last so many layers get an adapter; 0 = all."""

    @property
    def micro(self) -> int:
        """The largest divisor of `batch_size` up to `micro_batch_size`: the effective batch is exact."""
        fitting = range(1, min(self.micro_batch_size, self.batch_size) + 1)
        return max(size for size in fitting if self.batch_size % size == 0)


def arguments(context: Context, recipe: Recipe) -> dict[str, Any]:
    """The recipe as keyword arguments of any TRL configuration class."""
    import torch

    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(context.output),
        "learning_rate": recipe.learning_rate,
        "max_steps": recipe.steps or -1,
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.micro,
        "gradient_accumulation_steps": recipe.batch_size // recipe.micro,
        "max_length": recipe.max_length,
        "warmup_steps": recipe.warmup,
        "seed": context.seed,
        "use_cpu": not gpu,
        # On a CPU, autocast costs LoRA on bf16 weights a fifth of its speed and makes full steps noisier.
        "bf16": gpu and torch.cuda.is_bf16_supported(),
        "activation_checkpointing": gpu,
        "gradient_checkpointing": None,
        "dataloader_pin_memory": gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def train(
    context: Context,
    trainer: Any,
    configuration: Any,
    *,
    model: str,
    dataset: str,
    columns: Sequence[str],
    recipe: Recipe,
    **further: Any,
) -> Loaded:
    """Train the model in folder `model` on the rows in file `dataset`; a LoRA adapter ends up merged into the weights.

    `trainer` is a TRL trainer class, `configuration` its filled-in arguments, `further` goes to the trainer.

    Raises:
        ActionFailed: the loss is not a number, memory ran out, or no row has a token to learn from.
    """
    policy, tokenizer = context.load(model)
    stored = copy.deepcopy((policy.config, policy.generation_config)), policy.dtype
    if not recipe.lora_rank:
        policy.float()  # steps of a small learning rate vanish in bf16 weights
    rows = context.rows(dataset, (*columns, "tools", "chat_template_kwargs"))
    with known_warnings_ignored(), _compact_loss(), _out_of_memory_explained(recipe):
        run = trainer(
            model=policy,
            args=configuration,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=_adapter(recipe, policy),
            **further,
        )
        _listen(context, run)
        if not len(run.train_dataset):
            reason = f"No row of {dataset} has a token to learn from within max_length={recipe.max_length}."
            raise ActionFailed(reason, kind="bad_data")
        run.train()
    trained = run.model.merge_and_unload() if recipe.lora_rank else run.model
    del run
    gc.collect()  # trainer and optimizer refer to each other, and their memory is wanted for the evaluation
    return _restored(trained, *stored), context.tokenizer(model)


def reference(context: Context, folder: str) -> Any:
    """The model in `folder` for trainers that compare with it: exactly the policy before its first step."""
    return context.load(folder)[0].float().eval()


def _adapter(recipe: Recipe, policy: Any) -> Any:
    """LoRA on every linear layer but the head, in the last `lora_layers` layers."""
    if not recipe.lora_rank:
        return None
    import torch
    from peft import LoraConfig

    layers = policy.config.get_text_config().num_hidden_layers
    head = policy.get_output_embeddings()
    linear = {
        name.rsplit(".", 1)[-1]  # peft's own "all-linear" cannot be combined with chosen layers
        for name, module in policy.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    chosen = list(range(max(0, layers - recipe.lora_layers), layers)) if recipe.lora_layers else None
    return LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        target_modules=sorted(linear),
        layers_to_transform=chosen,
        task_type="CAUSAL_LM",
    )


def _restored(model: Any, configs: tuple[Any, Any], dtype: Any) -> Any:
    """The trained weights as a plain model again: trainers patch its forward and rewrite its token ids."""
    vars(model).pop("forward", None)
    model.activation_checkpointing_disable()
    model.config, model.generation_config = configs
    return model.to(dtype).eval()


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
def _out_of_memory_explained(recipe: Recipe) -> Iterator[None]:
    import torch

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        reason = f"Out of memory at {recipe.micro} rows of up to {recipe.max_length} tokens at once: {error}"
        raise ActionFailed(reason, kind="out_of_memory") from error
