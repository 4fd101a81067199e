"""One training with a TRL trainer, as a value that can be run."""

import copy
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
from lamdagent.actions.networks import last_layers, linear_layers, quantized_model, restored
from lamdagent.actions.recipe import Recipe, adapter, arguments, device_here
from lamdagent.errors import ActionFailed
from lamdagent.execution.progress import Progress
from lamdagent.libraries import known_warnings_ignored
from lamdagent.objects.kinds import dataset_kind
from lamdagent.rewards.mix import Term


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
    """Columns that the trainer reads of each row besides those of the method's kind of data."""
    prepare: Callable[[list[dict[str, Any]], int], list[dict[str, Any]]] | None = None
    """From the dataset's rows and the seed to the trainer's rows; stands in the scripts of rebuild/ as source text."""
    teacher: str = ""
    """Folder of a second model that the trainer takes; empty for none."""
    rewards: tuple[Term, ...] = ()
    """Reward functions by which the trainer scores answers; their weights are among `options`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the trainer reads of each row; the optional ones of its kind too, where a row has them."""
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
        """The training rows that the trainer gets, a `datasets.Dataset`."""
        rows = context.rows(self.dataset, self.every_column)
        if missing := [column for column in self.columns if column not in rows.column_names]:
            has = ", ".join(rows.column_names)
            reason = f"{self.dataset} has no column {', '.join(missing)}, which {self.method.title} needs; it has {has}"
            raise ActionFailed(reason, kind="bad_data")
        return type(rows).from_list(self.to_trl(rows.to_list(), context.seed)) if self.to_trl else rows

    def _further(self, context: Context, tokenizer: Any) -> dict[str, Any]:
        """Arguments that only some trainers take, by name."""
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
