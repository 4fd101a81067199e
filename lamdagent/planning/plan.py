"""From a typed configuration to the values of a search, checked against files and code before any compute."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from omegaconf import DictConfig

from lamdagent.actions.action import ActionType
from lamdagent.config import Config, examined
from lamdagent.enumeration.reachability import unreachable
from lamdagent.errors import ConfigError, UserError
from lamdagent.evaluation.task import Task
from lamdagent.guards import accelerate_config
from lamdagent.guards.preflight import Findings, preflight
from lamdagent.memory.external.config_check import source_faults
from lamdagent.objects.adapters import spec_of
from lamdagent.objects.compatibility import MergeSignature, known_signatures
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.objects.object_kinds import load_resource
from lamdagent.objects.resource import Resource
from lamdagent.objects.rows import load_dataset
from lamdagent.objects.sources import check_source, kind_of, local_path
from lamdagent.planning.actions import build_action_type
from lamdagent.planning.rules import rule_faults
from lamdagent.planning.tasks import build_task
from lamdagent.selection.registry import policy_kind
from lamdagent.settings.fault import Fault, Path, dotted

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """Everything a search needs, checked."""

    config: Config
    types: tuple[ActionType, ...]
    datasets: tuple[Dataset, ...]
    """In the plan of `make_outline` with names and kinds alone, without rows."""
    tasks: tuple[Task, ...]
    findings: Findings = field(default_factory=Findings)
    """Findings of the guards; no faults."""
    resources: tuple[Resource, ...] = ()
    """Objects that are neither model nor dataset, such as reward models."""

    def at(self, fraction: float) -> "Plan":
        """The same with another share of the data."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, data_fraction=fraction))

    def unreachable(self, models: Sequence[Model], frames: Mapping[str, MergeSignature]) -> list[str]:
        """Faults for actions that can never run on these initial models; others' models may join them."""
        joined = bool(self.config.memory.sources)
        return unreachable(
            self.types, models, self.datasets, self.config.search.max_depth, frames, joined, self.resources
        )


def read_plan(node: DictConfig) -> Plan:
    """The plan of a composed YAML node.

    Raises:
        ConfigError: with every fault at once: of the keys, and of what `make_plan` looks at.
    """
    config, faults = examined(node)
    return _checked(config, faults)


def make_plan(config: Config) -> Plan:
    """Check `config` against the world and build the plan.

    Raises:
        ConfigError: with every fault at once: files, columns, functions, actions that can never run, and what the
            guards refuse (preflight.py).
    """
    return _checked(config, ())


def make_outline(config: Config) -> Plan:
    """The plan for commands that run nothing: models and rows of datasets are not looked at, and may be missing.

    Raises:
        ConfigError: with every fault of actions, tasks and `memory.sources`.
    """
    faults: list[str] = []
    types = _each(faults, config.actions, build_action_type)
    tasks = _each(faults, config.tasks, partial(build_task, evaluation=config.evaluation))
    faults += source_faults(config)
    if faults:
        raise ConfigError(faults)
    data = [Dataset(n, d.kind, d.description, n, 1, "") for n, d in config.datasets.items()]
    return Plan(config, tuple(types), tuple(data), tuple(tasks))


def _checked(config: Config, known: Sequence[Fault]) -> Plan:
    """The plan of `config`, of which `known` is wrong already: entries that it names are not looked at again."""
    faults = [fault.said for fault in known]
    said = tuple(f"{dotted(fault.path)}:" for fault in known)
    faults += [fault for fault in (*rule_faults(config), *source_faults(config)) if not fault.startswith(said)]
    sound = _without(config, {fault.path[:2] for fault in known})
    types, datasets, tasks = _built(sound, faults)
    resources = tuple(_each(faults, sound.resources, load_resource))
    plan = Plan(config, types, datasets, tasks, resources=resources)
    if not faults:
        faults += policy_kind(config.agent).faults(types, datasets)
    if not faults:
        faults += _out_of_reach(plan)
    findings = preflight(sound, types, datasets, tasks)
    faults += findings.faults
    if faults:
        raise ConfigError(faults)
    plan = dataclasses.replace(plan, findings=findings)
    return plan.at(config.ladder.rungs[0]) if config.ladder.rungs else plan


def _built(config: Config, faults: list[str]) -> tuple[tuple[ActionType, ...], tuple[Dataset, ...], tuple[Task, ...]]:
    """The action types, datasets and tasks that `config` describes; models are only looked for. Adds to `faults`."""
    types = accelerate_config.checked(_each(faults, config.actions, build_action_type), faults)
    faults += accelerate_config.cluster_faults(types, config.execution)
    faults += accelerate_config.need_faults(types, config.execution)
    datasets = _each(faults, config.datasets, load_dataset)
    tasks = _each(faults, config.tasks, partial(build_task, evaluation=config.evaluation))
    specs = _each(faults, config.models, lambda name, _: (name, spec_of(name, config.models)))
    faults += [f"models.{name}: {fault}" for name, spec in specs for fault in check_source(spec)]
    return tuple(types), tuple(datasets), tuple(tasks)


def _without(config: Config, broken: Collection[Path]) -> Config:
    """`config` without the entries at these paths."""

    def kept(group: str, entries: Mapping[str, T]) -> dict[str, T]:
        return {name: entry for name, entry in entries.items() if (group, name) not in broken}

    return dataclasses.replace(
        config,
        models=kept("models", config.models),
        datasets=kept("datasets", config.datasets),
        resources=kept("resources", config.resources),
        actions=kept("actions", config.actions),
        tasks=kept("tasks", config.tasks),
    )


def stand_in(name: str, source: str) -> Model:
    """An initial model before its weights are read: its name here is not yet its fingerprint."""
    digest = hashlib.sha256(f"{name}:{source}".encode()).hexdigest()[:32]
    return Model(digest, source, base=digest)


def _out_of_reach(plan: Plan) -> list[str]:
    """Faults for unreachable actions, before a model is fetched: models fit until all of their files are at hand."""
    given = plan.config.models
    specs = {name: dataclasses.asdict(settings) for name, settings in given.items()}
    frames = known_signatures({name: local_path(spec) for name, spec in specs.items() if kind_of(spec) == "folder"})
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
