"""Training methods: the TRL trainer of each, what it reads, what it holds beside the model, what it generates.

Whoever has to know this of an action asks `method_of`: the memory guard, the second try of a job that ran out of
memory, the scripts of a rebuild, the reading of other people's runs.
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from lamdagent.objects.kinds import dataset_kind

F = TypeVar("F", bound=Callable[..., Any])
A = "lamdagent.actions."


@dataclass(frozen=True)
class Generation:
    """The answers that a method draws from the model, named by the hyperparameters that say how many and how long."""

    at_once: str
    """Answers that are generated together."""
    length: str
    """Tokens of the longest answer."""
    alone: bool = False
    """Before the training, with nothing but the weights in memory; else before each step, the optimizer beside it."""


@dataclass(frozen=True)
class Method:
    """One training method, as one action function performs it. Of a method of your own: see `performs`."""

    name: str
    """Our word for it."""
    trainer: str
    """The class in TRL, such as `trl.SFTTrainer`; its configuration is beside it, here `trl.SFTConfig`."""
    kind: str
    """Kind of its dataset: a name in `kinds.KINDS`, or `module:NAME`."""
    function: str = ""
    """`module:name` of the action function; empty for a method that `performs` marks."""
    reference: Literal["none", "given", "beta"] = "none"
    """The model as it was, held in memory while all weights are trained (with LoRA, the model without its adapter is
    the reference): `given` to the trainer, or loaded by the trainer itself where the hyperparameter `beta` is not 0."""
    teacher: str = ""
    """The slot of a second model that it learns from; empty for none."""
    rows: int = 1
    """Sequences that one row of the micro-batch puts into memory: 2 where two answers are compared."""
    least: int = 1
    """Fewest rows at once that it can do with."""
    packed: bool = False
    """Sequences are as long as `max_length`, however short the rows."""
    quantized: bool = False
    """The frozen weights are held in 4 bits while an adapter learns; it is merged into the weights as they were."""
    generates: Generation | None = None
    """None where all that it learns from is in the dataset."""
    signs: tuple[str, ...] = ()
    """Params of its TRL configuration that tell a run of somebody else apart from the methods below it in METHODS."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the trainer reads of each row."""
        return dataset_kind(self.kind).columns

    @property
    def title(self) -> str:
        """The trainer's name for a person, such as SFT."""
        return self.trainer.rpartition(".")[2].removesuffix("Trainer")

    @property
    def home(self) -> str:
        """The module that has the trainer and its configuration."""
        return self.trainer.rpartition(".")[0]

    def load(self) -> tuple[Any, Any]:
        """The classes of trainer and configuration."""
        module = importlib.import_module(self.home)
        return getattr(module, f"{self.title}Trainer"), getattr(module, f"{self.title}Config")


DISTILL = Method(
    "distill",
    "trl.DistillationTrainer",
    "prompts",
    f"{A}distillation:distill",
    teacher="teacher",
    generates=Generation("batch_size", "completion_length"),
    signs=("teacher_model_name_or_path",),
)
RLOO = Method(
    "rloo",
    "trl.RLOOTrainer",
    "prompts",
    f"{A}reinforcement:rloo",
    reference="beta",
    generates=Generation("batch_size", "completion_length"),
    signs=("normalize_advantages",),
)
GRPO = replace(
    RLOO, name="grpo", trainer="trl.GRPOTrainer", function=f"{A}reinforcement:grpo", signs=("num_generations",)
)
KTO = Method(
    "kto",
    "trl.KTOTrainer",
    "preference",
    f"{A}preference:kto",
    reference="given",
    least=2,  # an answer is compared with that to another prompt of the same micro-batch
    signs=("desirable_weight",),
)
DPO = Method(
    "dpo",
    "trl.DPOTrainer",
    "preference",
    f"{A}preference:dpo",
    reference="given",
    rows=2,
    signs=("precompute_ref_log_probs",),
)
ORPO = Method("orpo", "trl.experimental.orpo.ORPOTrainer", "preference", f"{A}preference:orpo", rows=2)
SFT = Method("sft", "trl.SFTTrainer", "sft", f"{A}sft:sft", signs=("completion_only_loss", "dataset_text_field"))
PACKED = replace(SFT, name="sft_packed", function=f"{A}sft:sft_packed", packed=True, signs=())
SFT_QLORA = replace(SFT, name="sft_qlora", function=f"{A}quantized:sft_qlora", quantized=True, signs=())
DPO_QLORA = replace(DPO, name="dpo_qlora", function=f"{A}quantized:dpo_qlora", quantized=True, signs=())
RFT = Method(
    "rft",
    "trl.SFTTrainer",
    "prompts",
    f"{A}sampling:rft",
    generates=Generation("answers_at_once", "completion_length", alone=True),
)

METHODS: Mapping[str, Method] = {
    method.name: method for method in (DISTILL, RLOO, GRPO, KTO, DPO, SFT, PACKED, ORPO, SFT_QLORA, DPO_QLORA, RFT)
}
"""From the most special to the plainest: `signs` are looked for in this order."""


def method_of(function: str) -> Method | None:
    """The method that the action function at `module:name` performs; None for merges and where nobody has said.

    Nothing is imported: a function of the user's says so once its module is loaded.
    """
    for method in METHODS.values():
        if method.function == function:
            return method
    module, _, name = function.partition(":")
    found = getattr(getattr(sys.modules.get(module), name, None), "method", None)
    return found if isinstance(found, Method) else None


def worker_libraries(functions: Iterable[str]) -> tuple[str, ...]:
    """Modules that jobs of these action functions load, in the order of their imports; a worker can do so beforehand.

    TRL and peft take longer than all the rest, and only a training method needs them.
    """
    trainers = ("trl", "peft") if any(method_of(function) for function in functions) else ()
    return ("torch", "transformers", *trainers, "lm_eval")


def performs(method: Method) -> Callable[[F], F]:
    """A decorator: the action function below it trains by `method` and gives a `Training` to `context.perform`."""

    def marked(function: F) -> F:
        vars(function)["method"] = method
        return function

    return marked
