"""From runs of the store and a command line to the plan of a replay: old settings, and what is other than it was."""

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
from lamdagent.scaling.merge_settings import Settings, joined, put_bases
from lamdagent.scaling.pipeline_records import Past
from lamdagent.scaling.replay_plan import Replay, Scale, transplanted

FREE = ("search", "budget", "champion", "retention", "evaluation", "tasks", "data_fraction")
"""What the command line may change."""
USED = ("models", "datasets", "resources", "actions")
"""Of these, what the pipelines are made of."""
ELSEWHERE = ("experiment", "model", "base", "tracking", "execution", "transfer", "dry_run")
"""What says which pipelines, on which model, where and how."""
NO_LIMIT = {"wall_clock_minutes": None, "gpu_hours": None, "usd": None}


@dataclass(frozen=True)
class Arrangement:
    """A replay that can begin."""

    plan: Plan
    """With its `Replay`."""
    config_yaml: str
    """The settings of its search run: what a replay or rebuild of its own runs will need."""
    warnings: tuple[str, ...]
    """For the user: what is other than it was though nobody has said so."""


def arrange(past: Past, count: int, node: DictConfig, words: Sequence[str], experiment: str) -> Arrangement:
    """The plan that makes the first `count` runs of `past` again, with the settings of their searches.

    Args:
        past: The runs, and then what they rest on.
        count: How many of its records are last steps of pipelines.
        node: What the command line composes to: where the store is, how actions are executed, and the new values.
        words: The overrides of the command line; what they do not name stays as it was.
        experiment: Where the new runs go, if the command line does not say.

    Raises:
        UserError: the runs do not fit together, or what they need is not there.
    """
    settings = joined(past)
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
    scale = Scale(
        seed=plan.config.search.seed if "search.seed" in said else None,
        fraction=plan.config.data_fraction if "data_fraction" in said else None,
        settings=_changed(plan.types, before, composed.actions),
    )
    replay = Replay(tuple(history.by_run[trial.run_id] for trial in last), history, scale, bases)
    warnings = tuple(_changed_by_itself(history, types))
    return Arrangement(replace(plan, replay=replay), OmegaConf.to_yaml(composed), warnings)


def _this_time(settings: Settings, known: History, node: DictConfig, said: Sequence[str], experiment: str) -> Settings:
    """What belongs to this command and not to the old searches."""
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
    """`settings` with the values of `node` for all that is `said`.

    Raises:
        UserError: something is said of what the pipelines are not made of.
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
    """Action type -> hyperparameters that have been given another value, for every step of the type.

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
    """A line for each step that would not be the same even if nothing were said."""
    kinds = {kind.name: kind for kind in types}
    for trial in history.actions:
        if (action := trial.action) is not None:
            same: dict[str, Model | Dataset] = {model.fingerprint: model for model in action.models}
            again = transplanted(action, same, kinds[action.type], action.seed, action.data_fraction)
            if again.fingerprint != action.fingerprint:
                yield f"{action.type} of the run {trial.run_id}: its data or the version of the action is another now"
