"""The configuration as typed values: each key with its type, unit, range and default. All faults come out at once.

A new group of settings is a class here, a field of `Config`, and its keys in conf/config.yaml.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lamdagent.errors import ConfigError
from lamdagent.settings.agent import AgentConfig
from lamdagent.settings.entries import ActionConfig, DatasetConfig, ModelConfig, ResourceConfig, SlotConfig, TaskConfig
from lamdagent.settings.fault import Fault
from lamdagent.settings.memory import ForeignScoreConfig, MemoryConfig, SourceConfig
from lamdagent.settings.plain import plain
from lamdagent.settings.reading import typed
from lamdagent.settings.section import AtLeast0, AtLeast1, Mode, NotNegative, Positive, Section, Share

__all__ = [
    "MAPPINGS",
    "ActionConfig",
    "AgentConfig",
    "BudgetConfig",
    "ChampionConfig",
    "Config",
    "DatasetConfig",
    "EvaluationConfig",
    "ExecutionConfig",
    "ForeignScoreConfig",
    "LadderConfig",
    "MemoryConfig",
    "ModelConfig",
    "ResourceConfig",
    "RetentionConfig",
    "SearchConfig",
    "SlotConfig",
    "SourceConfig",
    "TaskConfig",
    "TrackingConfig",
    "TransferConfig",
    "conf_folder",
    "examined",
    "read",
]

MAPPINGS = ("trl", "transformers", "params", "lamdagent")
"""Mappings that `memory.sources.<name>.mapping` may name: one file each in conf/source."""


@dataclass(frozen=True)
class SearchConfig(Section):
    """How the search goes."""

    seed: int = 0
    """Seeds the policy and every action; part of each action's fingerprint."""
    max_depth: AtLeast1 | None = None
    """Longest chain of actions; null = no limit."""
    test_top: AtLeast1 = 3
    """How many of the best pipelines are scored on the test split at the end, besides the base."""
    failures_in_a_row: AtLeast1 | None = 3
    """So many failures of one kind in a row that the surroundings must be to blame (no space, lost workers, the same
    dataset's faults, the same error) stop the search, exit code 75; null = they never do."""


@dataclass(frozen=True)
class TrackingConfig(Section):
    """The MLflow store: its place and its names."""

    uri: str | None = None
    """MLflow tracking URI; null = MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder."""
    experiment: str = "lamdagent"
    """MLflow experiment: one per search space."""
    registered_model: str | None = None
    """Name of the champion in the Model Registry; null = the experiment's name."""


@dataclass(frozen=True)
class BudgetConfig(Section):
    """Whichever ends first ends the search; null = no limit."""

    trials: AtLeast1 | None = 10
    """Actions of this search."""
    wall_clock_minutes: Positive | None = None
    """From start to end, the final test included; what still runs when only its time is left is ended."""
    gpu_hours: Positive | None = None
    """GPU time of all jobs, failed ones too, a restart's earlier processes included."""
    usd: Positive | None = None
    """LLM bill."""


@dataclass(frozen=True)
class ExecutionConfig(Section):
    """The executor: where and how actions run."""

    kind: str = "local"
    """local (a worker process), ray (a cluster, many actions at once), inline (this process, for debugging), or
    `module:Name` of an executor of yours."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of an executor of yours."""
    address: str | None = None
    """Address of the Ray cluster, host:port or auto; null = one is started on this machine and ends with the search."""
    cpus: Positive = 1.0
    """Ray: CPUs per action."""
    gpus: NotNegative | None = None
    """Ray: GPUs per action; null = 1 where the cluster has any, else 0."""
    at_once: AtLeast1 | None = None
    """Ray: most actions at once; null = as many as fit."""
    memory_gb: Positive | None = None
    """Memory of the device that actions run on, in 10^9 bytes; null = the smallest GPU's, else this machine's."""
    memory_check: Mode = "refuse"
    """Reaction to actions that by estimate cannot fit."""


@dataclass(frozen=True)
class ChampionConfig(Section):
    """When a pipeline takes the base's place (promotion.py)."""

    beyond: NotNegative = 1.0
    """Standard errors that its gain over the best base on the search split must exceed; 0 = any gain will do. The error
    is that of the paired difference where the items of both are at hand. Of many candidates the best one is always
    lucky: 2 is safer after long searches on few items."""
    seeds: AtLeast0 = 0
    """With so many further seeds the finalists' whole pipelines are made again at the end, to see how much of their
    scores is luck; nothing is chosen by it, and it is no part of budget.trials."""


@dataclass(frozen=True)
class LadderConfig(Section):
    """Explore on little data, then make only the best pipelines again on more (docs/scaling.md)."""

    rungs: list[Share] = field(default_factory=list)
    """Data fractions, rising, such as [0.1, 0.3, 1.0]; empty = no ladder. The agent chooses on the first rung, where
    budget.trials counts; each rung may use an equal share of the time and GPU hours, and what earlier ones have left.
    The champion comes from the last one."""
    keep: AtLeast1 = 3
    """So many of the best pipelines of each rung are made again on the next one."""


@dataclass(frozen=True)
class TransferConfig(Section):
    """`python -m lamdagent transfer`: which pipelines of a search are made again at another scale."""

    top: AtLeast1 = 5
    """The best so many."""
    spread: AtLeast0 = 5
    """So many others, at even distances in the ranking, the worst included."""


@dataclass(frozen=True)
class RetentionConfig(Section):
    """Which weights stay. Scores, recipes and adapters always do, and a deleted model can be made again."""

    keep_best: AtLeast1 = 10
    """So many of the best models keep their weights, besides those that anything rests on (retention.py)."""
    automatic: bool = False
    """Delete after each action; else only `python -m lamdagent prune` does."""


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """How models are scored."""

    batch_size: AtLeast1 = 16
    """Sequences per batch, with transformers; vLLM batches by itself."""
    overlap: Mode = "refuse"
    """Reaction to training rows that hold evaluation items (a whole question, or 13 of its words in a row): refuse,
    warn (the search run, its report and the model card say so) or off (nothing is compared)."""
    backend: str = "hf"
    """hf: transformers, on the weights that an action has just made, in memory; vllm: vLLM, which loads them again and
    is faster on a GPU; or module:Name of one of yours, which need not be lm-eval. Their scores are not compared."""
    vllm: dict[str, Any] = field(default_factory=lambda: {"gpu_memory_utilization": 0.8})
    """vLLM's options, such as max_model_len; the worker itself keeps a little of the GPU."""


@dataclass(frozen=True)
class Config(Section):
    """Everything."""

    search: SearchConfig = field(default_factory=SearchConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    champion: ChampionConfig = field(default_factory=ChampionConfig)
    ladder: LadderConfig = field(default_factory=LadderConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    models: dict[str, ModelConfig] = field(default_factory=dict)
    datasets: dict[str, DatasetConfig] = field(default_factory=dict)
    resources: dict[str, ResourceConfig] = field(default_factory=dict)
    actions: dict[str, ActionConfig] = field(default_factory=dict)
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    data_fraction: Share = 1.0
    """Share of every dataset; 10 % is inside 20 %. A search sees runs of its own share only."""
    base: str | None = None
    """For replay and transfer: the initial model in the old one's place, a name under `models` or a source."""
    dry_run: bool = False
    """Print what would be done and run nothing."""

    @property
    def scope(self) -> float | None:
        """The data fraction whose runs a search sees; None: those of all."""
        return None if self.memory.any_fraction else self.data_fraction


def conf_folder() -> Path:
    """The shipped configuration: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def read(node: DictConfig) -> Config:
    """The typed configuration of a composed YAML node.

    Raises:
        ConfigError: with every fault at once: unknown keys, wrong types, values out of range, unset variables.
    """
    config, faults = examined(node)
    if faults:
        raise ConfigError([fault.said for fault in faults])
    return config


def examined(node: DictConfig) -> tuple[Config, list[Fault]]:
    """The typed configuration of what can be used of a composed YAML node, and every fault of the rest."""
    faults: list[Fault] = []
    values = plain(node, faults)
    return typed(Config, _with_mappings(values), faults), faults


def _with_mappings(values: dict[Any, Any]) -> dict[Any, Any]:
    """`values` with every source of `memory.sources` over the file of its ready-made mapping."""
    memory = values.get("memory")
    sources = memory.get("sources") if isinstance(memory, Mapping) else None
    if not isinstance(memory, Mapping) or not isinstance(sources, Mapping):
        return values
    return {**values, "memory": {**memory, "sources": {name: _ready(given) for name, given in sources.items()}}}


def _ready(source: Any) -> Any:
    if not isinstance(source, Mapping):
        return source
    mapping = str(source.get("mapping", "params"))
    name = "params" if ":" in mapping else mapping
    if name not in MAPPINGS:
        return source
    ready = OmegaConf.load(conf_folder() / "source" / f"{name}.yaml")
    return OmegaConf.to_container(OmegaConf.merge(ready, OmegaConf.create(dict(source))))
