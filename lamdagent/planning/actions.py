"""From the settings of an action to its type, checked against its function."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from lamdagent.actions.action import ActionType, Scalar, Slot
from lamdagent.actions.limits import limits_of, plain_type
from lamdagent.config import ActionConfig, SlotConfig
from lamdagent.errors import UserError
from lamdagent.functions import load_function
from lamdagent.guards import accelerate_config
from lamdagent.objects.kinds import dataset_kind
from lamdagent.objects.object_kinds import ObjectKind, find_kind

MODELS = ("model", "models")
"""Kinds of slots that hold models; all others hold a dataset or a resource."""


def build_action_type(name: str, settings: ActionConfig) -> ActionType:
    """The action type that the settings at `actions.<name>` declare.

    Raises:
        UserError: the function cannot be loaded, or slots, hyperparameters or limits do not fit it.
    """
    parameters = _parameters(name, settings.function)
    slots = tuple(_slot(name, slot, given) for slot, given in settings.slots.items())
    if missing := [s.name for s in slots if s.name not in parameters]:
        raise UserError(f"actions.{name}.slots.{missing[0]}: {settings.function} has no such parameter")
    if not any(slot.holds_models for slot in slots):
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
    slots = tuple(dataclasses.replace(s, columns=read) if s.holds_data else s for s in slots)
    _check_bonds(name, slots, grid)
    if settings.makes:
        dataset_kind(settings.makes, f"actions.{name}.makes", ("nothing",))
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
        accelerate=accelerate_config.read(f"actions.{name}.accelerate", settings.accelerate),
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
    """Check that every hyperparameter and every other slot that a slot names is there."""
    single = [slot.name for slot in slots if slot.kind == "model"]
    for slot in slots:
        path = f"actions.{name}.slots.{slot.name}"
        if slot.complement and slot.complement not in grid:
            raise UserError(f"{path}.mirror: {slot.complement!r} is not a hyperparameter")
        others = [other for other in single if other != slot.name]
        if slot.distinct_from and (slot.name not in single or slot.distinct_from not in others):
            allowed = ", ".join(others) or "none here"
            raise UserError(f"{path}.unlike: got {slot.distinct_from!r}, wanted another slot of kind model: {allowed}")
    if len(pairs := [slot.name for slot in slots if slot.distinct_from]) > 1:
        raise UserError(f"actions.{name}.slots: {' and '.join(pairs)} have `unlike`; one slot of an action can")


def _parameters(name: str, function: str) -> dict[str, inspect.Parameter]:
    every = inspect.signature(load_function(function, f"actions.{name}.function")).parameters
    return {key: p for key, p in every.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _slot(action: str, name: str, settings: SlotConfig) -> Slot:
    path = f"actions.{action}.slots.{name}"
    kind = _slot_kind(f"{path}.kind", settings.kind)
    several = settings.kind == "models"
    minimum = settings.minimum if settings.minimum is not None else (2 if several else 1)
    maximum = settings.maximum if settings.maximum is not None else max(minimum, 2 if several else 1)
    if not (2 if several else 1) <= minimum <= maximum or (not several and maximum > 1):
        raise UserError(f"{path}: minimum {minimum} and maximum {maximum} make no sense for kind {settings.kind}")
    if settings.ordered and (not several or settings.mirror):
        raise UserError(f"{path}.ordered: only for kind models, and not with mirror, which swaps them")
    return Slot(
        name,
        kind,
        minimum,
        maximum,
        settings.role,
        settings.mirror,
        settings.unlike,
        ordered=settings.ordered,
    )


def _slot_kind(path: str, given: str) -> str:
    """`Slot.kind` for what the user wrote.

    Raises:
        UserError: there is no such kind of object.
    """
    if given in MODELS:
        return given
    if ":" in given and isinstance(load_function(given, path), ObjectKind):
        return find_kind(path, given).name
    dataset_kind(given, path, MODELS)
    return given


def _scalar(path: str, value: Any, annotation: Any) -> Scalar:
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if annotation in (int, bool, str) and type(value) is annotation:
        return value  # type: ignore[no-any-return]
    wanted = getattr(annotation, "__name__", str(annotation))
    raise UserError(f"{path}: got {value!r} ({type(value).__name__}), wanted {wanted}")
