"""The setup of a replay, from runs of the store and a command line: the earlier settings with the new values."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lamdagent.actions.action import ActionType, Scalar
from lamdagent.config import MemoryConfig, read
from lamdagent.errors import UserError
from lamdagent.memory.history import build_history
from lamdagent.memory.trial import History
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.planning.plan import Plan, make_outline, make_plan
from lamdagent.scaling.merge_settings import Settings, merge_settings, put_bases
from lamdagent.scaling.pipeline_records import PipelineRecords
from lamdagent.scaling.replay_plan import Replay, ReplayOverrides, rebind

FREE = ("search", "budget", "champion", "retention", "evaluation", "tasks", "data_fraction")
"""Sections that the command line may change."""
USED = ("models", "datasets", "resources", "actions")
"""Sections of which it may change the entries that the pipelines use."""
ELSEWHERE = ("experiment", "model", "base", "tracking", "execution", "transfer", "dry_run")
"""Sections that say which pipelines are made, on which model, where and how."""
NO_LIMIT = {"wall_clock_minutes": None, "gpu_hours": None, "usd": None}


@dataclass(frozen=True)
class ReplaySetup:
    """A replay that can begin."""

    plan: Plan
    replay: Replay
    config_yaml: str
    """The settings of its search run, from which its own runs can be replayed or rebuilt."""
    warnings: tuple[str, ...]
    """Messages for the user: differences from the earlier runs that the command line does not name."""


def make_replay_setup(
    past: PipelineRecords, count: int, node: DictConfig, words: Sequence[str], experiment: str
) -> ReplaySetup:
    """The plan that makes the first `count` runs of `past` again, with the settings of their searches.

    Args:
        past: The last steps of the pipelines, then the runs that they need.
        count: The number of last steps.
        node: The composed configuration: where the store is, how actions are executed, and the new values.
        words: The overrides of the command line; a value that they do not name stays as it was.
        experiment: The experiment of the new runs, where the command line names none.

    Raises:
        UserError: the runs do not fit together, or something that they need is missing.
    """
    settings = merge_settings(past)
    types = make_outline(replace(read(OmegaConf.create(settings)), tasks={}, memory=MemoryConfig())).types
    known = build_history(past.records, types, (), ())
    last = [known.by_run[record.run_id] for record in past.records[:count]]
    given = OmegaConf.to_container(node.models, resolve=True)
    assert isinstance(given, dict)
    bases = put_bases(settings, past, last, given, node.base)
    said = [str(one.key_or_group) for one in OverridesParser.create().parse_overrides(list(words))]
    settings |= _this_time(settings, known, node, said, experiment)
    before = deepcopy(settings["actions"])
    composed = _overlaid(settings, node, said)
    plan = make_plan(read(composed))
    history = build_history(past.records, types, plan.datasets, plan.tasks, resources=plan.resources)
    new = ReplayOverrides(
        seed=plan.config.search.seed if "search.seed" in said else None,
        fraction=plan.config.data_fraction if "data_fraction" in said else None,
        settings=_changed(plan.types, before, composed.actions),
    )
    replay = Replay(tuple(history.by_run[trial.run_id] for trial in last), history, new, bases)
    warnings = tuple(_changed_by_itself(history, types))
    return ReplaySetup(plan, replay, OmegaConf.to_yaml(composed), warnings)


def _this_time(settings: Settings, known: History, node: DictConfig, said: Sequence[str], experiment: str) -> Settings:
    """The sections that belong to this command and not to the earlier searches."""
    tracking = {**(settings.get("tracking") or {}), "uri": node.tracking.uri, "experiment": experiment}
    tracking |= {"experiment": node.tracking.experiment} if "tracking.experiment" in said else {}
    fractions = {trial.action.data_fraction for trial in known.actions if trial.action}
    return {
        "tracking": tracking,
        "execution": OmegaConf.to_container(node.execution),
        "agent": {},
        "ladder": {},
        "budget": {"trials": len(known.actions), **NO_LIMIT},
        "memory": {"any_fraction": len(fractions) > 1 and "data_fraction" not in said},
        "champion": {**(settings.get("champion") or {}), "seeds": 0},
        "data_fraction": min(fractions),
        "base": None,
        "dry_run": False,
    }


def _overlaid(settings: Settings, node: DictConfig, said: Sequence[str]) -> DictConfig:
    """`settings` with the values of `node` for every key in `said`.

    Raises:
        UserError: a key does not affect the pipelines.
    """
    composed = OmegaConf.create(settings)
    for key in said:
        section, _, rest = key.partition(".")
        name = rest.partition(".")[0]
        if section in USED and name and name not in settings[section]:
            allowed = ", ".join(settings[section])
            raise UserError(f"{key}: the pipelines are made without it; they are made of {section} {allowed}")
        if section in FREE or (section in USED and name):
            OmegaConf.update(composed, key, OmegaConf.select(node, key), force_add=True)
        elif section not in ELSEWHERE:
            allowed = ", ".join((*FREE, *USED, *ELSEWHERE))
            raise UserError(f"{key}: nothing depends on it when pipelines are made again; what may be said: {allowed}")
    return composed


def _changed(
    types: Sequence[ActionType], before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, dict[str, Scalar]]:
    """Action type -> hyperparameters with a new value, for every step of the type.

    Raises:
        UserError: more than one value is given.
    """
    found: dict[str, dict[str, Scalar]] = {}
    for kind in types:
        for key, value in now[kind.name].hyperparameters.items():
            if value == before[kind.name]["hyperparameters"].get(key):
                continue
            if len(kind.grid[key]) > 1:
                raise UserError(
                    f"actions.{kind.name}.hyperparameters.{key}: got {value}, wanted one value for all steps"
                )
            found.setdefault(kind.name, {})[key] = kind.grid[key][0]
    return found


def _changed_by_itself(history: History, types: Sequence[ActionType]) -> Iterator[str]:
    """A message for each step whose fingerprint differs even without any override."""
    kinds = {kind.name: kind for kind in types}
    for trial in history.actions:
        if (action := trial.action) is not None:
            same: dict[str, Model | Dataset] = {model.fingerprint: model for model in action.models}
            again = rebind(action, same, kinds[action.type], action.seed, action.data_fraction)
            if again.fingerprint != action.fingerprint:
                yield f"{action.type} of the run {trial.run_id}: its data or the version of the action is another now"
