"""From a typed configuration to the values of a search, checked against files and code before any compute."""

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lamdagent import launching
from lamdagent.actions.action import ActionType, Scalar, Slot
from lamdagent.actions.fit import Frame, known_frames
from lamdagent.actions.limits import limits_of, plain_type
from lamdagent.config import ActionConfig, Config, EvaluationConfig, SlotConfig, TaskConfig
from lamdagent.errors import ConfigError, UserError
from lamdagent.evaluation.fingerprint import task_fingerprint
from lamdagent.evaluation.task import Task
from lamdagent.memory.check import source_faults
from lamdagent.objects.adapters import spec_of
from lamdagent.objects.dataset import COLUMNS, Dataset
from lamdagent.objects.model import Model
from lamdagent.objects.rows import load_dataset
from lamdagent.objects.sources import check_source, kind_of, local_path
from lamdagent.preflight import MODES, Findings, preflight
from lamdagent.reach import unreachable
from lamdagent.replayed import Replay
from lamdagent.selection.baselines import BASELINES, baseline_faults
from lamdagent.tracking import schema

POLICIES = ("auto", "hybrid", "llm", "surrogate", "tpe", "random", *BASELINES)
EXECUTIONS = ("local", "inline", "ray")
SLOT_KINDS = ("model", "models", *COLUMNS)
ROLES = ("any", "initial", "produced")
T = TypeVar("T")


@dataclass(frozen=True)
class Outline:
    """What a plan says by names alone: no weights, no rows."""

    config: Config
    types: tuple[ActionType, ...]
    datasets: tuple[Dataset, ...]
    """With names and kinds, without rows."""
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Plan:
    """Everything a search needs, checked."""

    config: Config
    types: tuple[ActionType, ...]
    datasets: tuple[Dataset, ...]
    tasks: tuple[Task, ...]
    findings: Findings = field(default_factory=Findings)
    """What the guards say; no faults."""
    replay: Replay | None = None
    """What is made again, where nobody chooses."""

    def at(self, fraction: float) -> "Plan":
        """The same with another share of the data."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, data_fraction=fraction))

    def unreachable(self, models: Sequence[Model], frames: Mapping[str, Frame]) -> list[str]:
        """Faults for actions that can never run on these initial models (reach.py); others' models may join them."""
        joined = bool(self.config.memory.sources)
        return unreachable(self.types, models, self.datasets, self.config.search.max_depth, frames, joined)


def make_plan(config: Config) -> Plan:
    """Check `config` against the world and build the plan.

    Raises:
        ConfigError: with every fault at once: files, columns, functions, ranges, actions that can never run, and what
            the guards refuse (preflight.py).
    """
    faults = list(_ranges(config))
    types = launching.checked(_each(faults, config.actions, _action_type), faults)
    faults += launching.cluster_faults(types, config.execution)
    faults += launching.need_faults(types, config.execution)
    datasets = _each(faults, config.datasets, load_dataset)
    tasks = _each(faults, config.tasks, partial(_task, evaluation=config.evaluation))
    faults += [] if faults else baseline_faults(config.agent.kind, types, datasets)
    faults += source_faults(config)
    specs = _each(faults, config.models, lambda name, _: (name, spec_of(name, config.models)))
    faults += [f"models.{name}: {fault}" for name, spec in specs for fault in check_source(spec)]
    plan = Plan(config, tuple(types), tuple(datasets), tuple(tasks))
    if not faults:
        faults += _out_of_reach(plan)
    findings = preflight(config, types, datasets, tasks)
    faults += findings.faults
    if faults:
        raise ConfigError(faults)
    plan = dataclasses.replace(plan, findings=findings)
    return plan.at(config.ladder.rungs[0]) if config.ladder.rungs else plan


def make_outline(config: Config) -> Outline:
    """For commands that run nothing: neither models nor the rows of datasets are looked at, and both may be missing.

    Raises:
        ConfigError: with every fault of actions, tasks and `memory.sources`.
    """
    faults: list[str] = []
    types = _each(faults, config.actions, _action_type)
    tasks = _each(faults, config.tasks, partial(_task, evaluation=config.evaluation))
    faults += source_faults(config)
    if faults:
        raise ConfigError(faults)
    data = [Dataset(n, d.kind, d.description, n, 1, "") for n, d in config.datasets.items()]  # type: ignore[arg-type]
    return Outline(config, tuple(types), tuple(data), tuple(tasks))


def stand_in(name: str, source: str) -> Model:
    """An initial model before its weights are read: its name here is not yet its fingerprint."""
    digest = hashlib.sha256(f"{name}:{source}".encode()).hexdigest()[:32]
    return Model(digest, source, base=digest)


def _out_of_reach(plan: Plan) -> list[str]:
    """Of what can be told before a model is fetched: models fit as long as not all of their files are at hand."""
    given = plan.config.models
    specs = {name: dataclasses.asdict(settings) for name, settings in given.items()}
    frames = known_frames({name: local_path(spec) for name, spec in specs.items() if kind_of(spec) == "folder"})
    models = [stand_in(name, settings.source) for name, settings in given.items()]
    if len(frames) == len(models):
        digests = [frame.digest for frame in frames.values()]
        models = [dataclasses.replace(model, frame=d) for model, d in zip(models, digests, strict=True)]
    return plan.unreachable(models, frames)


def _each(faults: list[str], entries: Mapping[str, Any], build: Callable[[str, Any], T]) -> list[T]:
    built = []
    for name, settings in entries.items():
        try:
            built.append(build(name, settings))
        except UserError as error:
            faults.append(str(error))
    return built


def _ranges(config: Config) -> Iterator[str]:
    for group, wanted in (("models", "model"), ("actions", "action"), ("tasks", "task")):
        if not getattr(config, group):
            yield f"{group}: none given; pick some, such as +{wanted}=..., or a whole experiment: +experiment=tooluse"
    yield from _one_of("agent.kind", config.agent.kind, POLICIES)
    yield from _one_of("agent.structured", config.agent.structured, ("auto", "on", "off"))
    yield from _one_of("execution.kind", config.execution.kind, EXECUTIONS)
    yield from _one_of("execution.memory_check", config.execution.memory_check, MODES)
    yield from _one_of("evaluation.overlap", config.evaluation.overlap, MODES)
    if (config.execution.address or "").startswith("ray://"):
        yield "execution.address: Ray's client (ray://) is not enough; run on a machine of the cluster, with auto"
    if config.agent.kind in ("llm", "hybrid") and not config.agent.model:
        wanted = "one in litellm's form, such as agent.model=openai/gpt-4o"
        yield f"agent.model: not given, but agent={config.agent.kind} needs {wanted}"
    for key, value in dataclasses.asdict(config.budget).items():
        if value is not None and not value > 0:
            yield f"budget.{key}: got {value}, wanted more than 0, or null for no limit"
    if all(value is None for value in dataclasses.asdict(config.budget).values()):
        yield "budget: every limit is null, the search would never end; set budget.trials or another one"
    if not 0 < config.data_fraction <= 1:
        yield f"data_fraction: got {config.data_fraction}, wanted more than 0 and at most 1"
    yield from _ladder(config)
    yield from _backend(config.evaluation.backend)
    yield from _least(config)
    if config.tasks and not sum(t.weight for t in config.tasks.values() if math.isfinite(t.weight)) > 0:
        yield "tasks: the weights add up to nothing; give at least one task a weight above 0"


def _ladder(config: Config) -> Iterator[str]:
    rungs = config.ladder.rungs
    if rungs and not (len(rungs) > 1 and all(a < b for a, b in itertools.pairwise([0.0, *rungs])) and rungs[-1] <= 1):
        yield f"ladder.rungs: got {rungs}, wanted two or more rising data fractions up to 1, such as [0.1, 0.3, 1.0]"
    if rungs and config.data_fraction != 1:
        yield f"data_fraction: got {config.data_fraction}, but ladder.rungs says which fractions are used; leave it out"
    if rungs and config.memory.any_fraction:
        yield "memory.any_fraction: got true, but a ladder compares the pipelines of each rung alone; leave it out"


def _backend(name: str) -> Iterator[str]:
    yield from _one_of("evaluation.backend", name, ("hf", "vllm"))
    if name == "vllm" and importlib.util.find_spec("vllm") is None:
        yield "evaluation.backend: vllm is not installed here; `pip install vllm` on a machine with a GPU, or take hf"


def _least(config: Config) -> Iterator[str]:
    limits = {
        "search.test_top": (config.search.test_top, 1),
        "search.max_depth": (config.search.max_depth, 1),
        "search.failures_in_a_row": (config.search.failures_in_a_row, 1),
        "memory.tokens": (config.memory.tokens, 100),
        "champion.beyond": (config.champion.beyond, 0),
        "champion.seeds": (config.champion.seeds, 0),
        "ladder.keep": (config.ladder.keep, 1),
        "transfer.top": (config.transfer.top, 1),
        "transfer.spread": (config.transfer.spread, 0),
        "retention.keep_best": (config.retention.keep_best, 1),
        "execution.cpus": (config.execution.cpus, 0.01),
        "execution.gpus": (config.execution.gpus, 0),
        "execution.at_once": (config.execution.at_once, 1),
        "execution.memory_gb": (config.execution.memory_gb, 0.01),
        "evaluation.batch_size": (config.evaluation.batch_size, 1),
        "agent.retries": (config.agent.retries, 0),
        "agent.corrections": (config.agent.corrections, 0),
        "agent.max_options": (config.agent.max_options, 2),
        "agent.timeout_s": (config.agent.timeout_s, 0.01),
        "agent.prompt_tokens": (config.agent.prompt_tokens, 500),
        "agent.max_tokens": (config.agent.max_tokens, 16),
    }
    for path, (value, least) in limits.items():
        if value is not None and value < least:
            yield f"{path}: got {value}, wanted at least {least}"


def _one_of(path: str, value: str, allowed: tuple[str, ...]) -> Iterator[str]:
    if value not in allowed:
        yield f"{path}: got {value!r}; allowed: {', '.join(allowed)}"


def _task(name: str, settings: TaskConfig, evaluation: EvaluationConfig) -> Task:
    path = f"tasks.{name}"
    if not settings.task or not settings.metric:
        raise UserError(f"{path}: `task` (lm-eval's name) and `metric` (such as acc,none) are both needed")
    if name in (schema.SCORE, schema.GAIN):
        raise UserError(f"{path}: `{name}` is the name of a metric of our own; call the task otherwise")
    if not (math.isfinite(settings.weight) and settings.weight >= 0):
        raise UserError(f"{path}.weight: got {settings.weight}, wanted 0 or more")
    if not settings.low < settings.high:
        raise UserError(f"{path}: low = {settings.low} must be below high = {settings.high}")
    if bad := [s for s in (*settings.splits, *settings.limits) if s not in ("search", "test")]:
        raise UserError(f"{path}: there is no split {bad[0]!r}; allowed: search, test")
    if bad := [s for s, limit in settings.limits.items() if limit < 2]:
        raise UserError(f"{path}.limits.{bad[0]}: got {settings.limits[bad[0]]}, wanted at least 2 items")
    folder = Path(__file__).parent / "evaluation" / "tasks" if settings.folder == "builtin" else settings.folder
    if folder and not Path(folder).is_dir():
        raise UserError(f"{path}.folder: there is no folder {settings.folder!r}; `builtin` means the package's own")
    splits = {"search": "validation", "test": "test"} | settings.splits
    values = dataclasses.asdict(settings) | {"folder": str(folder or ""), "splits": splits}
    task = Task(name=name, vllm=evaluation.vllm if evaluation.backend == "vllm" else None, **values)
    return dataclasses.replace(task, fingerprint=task_fingerprint(task))


def _action_type(name: str, settings: ActionConfig) -> ActionType:
    parameters = _parameters(name, settings.function)
    slots = tuple(_slot(name, slot, given) for slot, given in settings.slots.items())
    if missing := [s.name for s in slots if s.name not in parameters]:
        raise UserError(f"actions.{name}.slots.{missing[0]}: {settings.function} has no such parameter")
    if not any(slot.kind in ("model", "models") for slot in slots):
        raise UserError(f"actions.{name}.slots: no slot of kind model or models, so there is nothing to improve")
    tunable = {key: p for key, p in parameters.items() if key not in settings.slots}
    if unknown := [key for key in settings.hyperparameters if key not in tunable]:
        allowed = ", ".join(tunable)
        raise UserError(f"actions.{name}.hyperparameters.{unknown[0]}: unknown; {settings.function} takes {allowed}")
    grid = {}
    for key, parameter in tunable.items():
        given = settings.hyperparameters.get(key, parameter.default)
        if given is inspect.Parameter.empty:
            raise UserError(f"actions.{name}.hyperparameters.{key}: not given, and {settings.function} has no default")
        values = given if isinstance(given, list) else [given]
        if not values:
            raise UserError(f"actions.{name}.hyperparameters.{key}: an empty list leaves nothing to choose from")
        wanted = plain_type(parameter.annotation)
        grid[key] = tuple(_scalar(f"actions.{name}.hyperparameters.{key}", v, wanted) for v in values)
    read = _limited(name, grid, tunable)
    slots = tuple(dataclasses.replace(s, columns=read) if s.kind == "prompts" else s for s in slots)
    _check_bonds(name, slots, grid)
    if not settings.timeout_minutes > 0:
        raise UserError(f"actions.{name}.timeout_minutes: got {settings.timeout_minutes}, wanted more than 0")
    if settings.makes and settings.makes not in COLUMNS:
        raise UserError(f"actions.{name}.makes: got {settings.makes!r}; allowed: {', '.join(COLUMNS)}, or nothing")
    return ActionType(
        name=name,
        description=settings.description,
        function=settings.function,
        slots=slots,
        grid=grid,
        paper=settings.paper,
        version=settings.version,
        timeout_minutes=settings.timeout_minutes,
        makes=settings.makes,
        needs=tuple(settings.needs),
        accelerate=launching.read(f"actions.{name}.accelerate", settings.accelerate),
    )


def _limited(
    name: str, grid: Mapping[str, tuple[Scalar, ...]], parameters: Mapping[str, inspect.Parameter]
) -> tuple[str, ...]:
    """The columns that some value of the grid reads, once every value has been found within its limits."""
    columns: set[str] = set()
    for key, values in grid.items():
        for limit in limits_of(parameters[key].annotation):
            for value in values:
                if fault := limit.fault(value, grid):
                    raise UserError(f"actions.{name}.hyperparameters.{key}: {fault}")
                columns |= limit.columns(value)
    return tuple(sorted(columns))


def _check_bonds(name: str, slots: tuple[Slot, ...], grid: Mapping[str, Any]) -> None:
    """What a slot says of hyperparameters and other slots must be there."""
    single = [slot.name for slot in slots if slot.kind == "model"]
    for slot in slots:
        path = f"actions.{name}.slots.{slot.name}"
        if slot.mirror and slot.mirror not in grid:
            raise UserError(f"{path}.mirror: {slot.mirror!r} is not a hyperparameter")
        others = [other for other in single if other != slot.name]
        if slot.unlike and (slot.name not in single or slot.unlike not in others):
            allowed = ", ".join(others) or "none here"
            raise UserError(f"{path}.unlike: got {slot.unlike!r}, wanted another slot of kind model: {allowed}")
    if len(pairs := [slot.name for slot in slots if slot.unlike]) > 1:
        raise UserError(f"actions.{name}.slots: {' and '.join(pairs)} have `unlike`; one slot of an action can")


def _parameters(name: str, function: str) -> dict[str, inspect.Parameter]:
    module, _, attribute = function.partition(":")
    try:
        target = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        wanted = f"actions.{name}.function: got {function!r}, wanted module:function on the Python path"
        raise UserError(f"{wanted} ({error})") from None
    every = inspect.signature(target).parameters
    return {key: p for key, p in every.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _slot(action: str, name: str, settings: SlotConfig) -> Slot:
    path = f"actions.{action}.slots.{name}"
    for key, value, allowed in (("kind", settings.kind, SLOT_KINDS), ("role", settings.role, ROLES)):
        if fault := next(_one_of(f"{path}.{key}", value, allowed), None):
            raise UserError(fault)
    several = settings.kind == "models"
    minimum = settings.minimum if settings.minimum is not None else (2 if several else 1)
    maximum = settings.maximum if settings.maximum is not None else max(minimum, 2 if several else 1)
    if not (2 if several else 1) <= minimum <= maximum or (not several and maximum > 1):
        raise UserError(f"{path}: minimum {minimum} and maximum {maximum} make no sense for kind {settings.kind}")
    if settings.ordered and (not several or settings.mirror):
        raise UserError(f"{path}.ordered: only for kind models, and not with mirror, which swaps them")
    return Slot(
        name,
        settings.kind,  # type: ignore[arg-type]
        minimum,
        maximum,
        settings.role,  # type: ignore[arg-type]
        settings.mirror,
        settings.unlike,
        ordered=settings.ordered,
    )


def _scalar(path: str, value: Any, annotation: Any) -> Scalar:
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if annotation in (int, bool, str) and type(value) is annotation:
        return value  # type: ignore[no-any-return]
    wanted = getattr(annotation, "__name__", str(annotation))
    raise UserError(f"{path}: got {value!r} ({type(value).__name__}), wanted {wanted}")
