"""Action types whose inputs can never exist, found before the search by growing the pool on paper."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from lamdagent.actions.action import ActionType, Slot
from lamdagent.enumeration.space import ActionSpace, produced
from lamdagent.objects.compatibility import MergeSignature, incompatibilities
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.kinds import dataset_kind
from lamdagent.objects.model import Model
from lamdagent.objects.resource import Resource

ENOUGH = 200
"""Actions of a type that one round looks at."""


def unreachable(
    types: Sequence[ActionType],
    models: Sequence[Model],
    datasets: Sequence[Dataset],
    max_depth: int | None = None,
    frames: Mapping[str, MergeSignature] | None = None,
    open_pool: bool = False,
    resources: Sequence[Resource] = (),
) -> list[str]:
    """A fault for each type that can never run, with the reason.

    `models` are the initial ones, `frames` those of them that are known, by the names that the user gave; models
    without a frame fit each other. `open_pool`: models that nobody knows yet may join, so that only datasets can lack.
    """
    faults = [_no_data(t, [*datasets, *resources, *_to_be_made(types)]) for t in types]
    if not any(faults) and not open_pool:
        pool, running = _grown(types, models, datasets, max_depth, resources)
        faults = [_no_models(t, pool, max_depth, frames or {}) if t.name not in running else "" for t in types]
    return [f"actions.{t.name}: {fault}" for t, fault in zip(types, faults, strict=True) if fault]


def _grown(
    types: Sequence[ActionType],
    models: Sequence[Model],
    datasets: Sequence[Dataset],
    max_depth: int | None,
    resources: Sequence[Resource],
) -> tuple[list[Model], set[str]]:
    """A pool in which every type that can ever run can run, and the names of these types."""
    most = max((slot.minimum for t in types for slot in _model_slots(t)), default=1)
    thin = [_thinned(t, most + 1) for t in types]
    pool, data = list(models), list(datasets)
    running: set[str] = set()
    rounds_left = most + 1  # enough for new models to become as many as any slot wants
    while rounds_left and len(running) < len(types):
        tried = {model.fingerprint for model in pool}
        space = ActionSpace(thin, pool, data, tried=tried, max_depth=max_depth, resources=resources)
        found = {t.name: list(itertools.islice(space.actions(t), ENOUGH)) for t in thin}
        new = {name for name, actions in found.items() if actions} - running
        pool += [produced(action, "") for actions in found.values() for action in actions]
        running |= new
        data += _to_be_made([t for t in thin if t.name in new])
        rounds_left = most + 1 if new else rounds_left - 1
    return pool, running


def _to_be_made(types: Sequence[ActionType]) -> list[Dataset]:
    """Stand-ins for what the types' actions make besides models, with the columns of their kind alone."""
    kinds = {t.makes: t.name for t in types if t.makes}
    return [Dataset(f"of {t}", k, "", f"of {t}", 1, "", columns=dataset_kind(k).columns) for k, t in kinds.items()]


def _thinned(action_type: ActionType, room: int) -> ActionType:
    """The type with about `room` combinations of hyperparameters: more change nothing about what can exist."""
    grid = {}
    for key, values in action_type.grid.items():
        grid[key] = values[:room]
        room = math.ceil(room / len(grid[key]))
    return dataclasses.replace(action_type, grid=grid)


def _model_slots(action_type: ActionType) -> Iterator[Slot]:
    return (slot for slot in action_type.slots if slot.holds_models)


def _no_data(action_type: ActionType, data: Sequence[Dataset | Resource]) -> str:
    """Why a dataset or resource is missing, empty when none is."""
    for slot in action_type.slots:
        if slot.holds_models or any(o.fits(slot.kind, slot.columns) for o in data):
            continue
        head = f"its slot {slot.name!r} takes {slot.kind}"
        datasets = [o for o in data if isinstance(o, Dataset)]
        found = [f"{d.name} has {', '.join(d.columns or ())}" for d in datasets if d.kind == slot.kind]
        if found:
            return f"{head} with the columns {', '.join(slot.columns)}, but {'; '.join(found)}"
        return f"{head}, but there is no such {'dataset' if slot.holds_data else 'resource'}"
    return ""


def _no_models(
    action_type: ActionType, pool: Sequence[Model], max_depth: int | None, frames: Mapping[str, MergeSignature]
) -> str:
    """Why the models that can exist are not what the type takes."""
    inputs = [m for m in pool if max_depth is None or m.depth < max_depth]
    limit = f" (search.max_depth = {max_depth} counts)" if max_depth else ""
    for slot in _model_slots(action_type):
        count = len([m for m in inputs if slot.role == "any" or m.initial == (slot.role == "initial")])
        if count < slot.minimum:
            role = "" if slot.role == "any" else f"{slot.role} "
            wanted = f"{slot.minimum} {role}model{'s' if slot.minimum > 1 else ''}"
            can_be = f"there can be only {count}" if count else "there can be none"
            advice = f"add models, or actions that make some, or take {action_type.name} out"
            return f"its slot {slot.name!r} takes {wanted}, but {can_be}{limit}; {advice}"
    unlike_slot = next((slot.name for slot in action_type.slots if slot.distinct_from), "")
    if len(inputs) == 1 and unlike_slot:
        only = f"but there is only one, and no action can produce a second{limit}"
        return f"its slot {unlike_slot!r} takes another model, {only}"
    unlike = (
        "; ".join(incompatibilities(frames)) or "they differ in architecture, vocabulary or the base they descend from"
    )
    return f"no models that can exist fit together in it: {unlike}. Add models that fit, or take {action_type.name} out"
