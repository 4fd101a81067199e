"""The canonical fingerprint of an action: equal for two that would make the same model."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lamdagent.actions.action import ActionType, Scalar
from lamdagent.errors import IllegalAction

Objects = Mapping[str, Sequence[Any]]
"""Slot name -> the models or datasets in it."""


def fingerprint_of(
    action_type: ActionType, objects: Objects, values: Mapping[str, Scalar], seed: int, fraction: float
) -> str:
    """Hex digest of all that decides which model comes out; expects canonical order (see `canonical`)."""
    content = {
        "type": action_type.name,
        "version": action_type.version,
        "objects": {slot: [o.fingerprint for o in chosen] for slot, chosen in objects.items()},
        "hyperparameters": dict(values),
        "seed": seed,
        "data_fraction": fraction,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def canonical(
    action_type: ActionType, objects: Objects, values: Mapping[str, Scalar]
) -> tuple[dict[str, list[Any]], dict[str, Scalar]]:
    """Order-free slots sorted by fingerprint; a mirrored hyperparameter (the first model's share) follows the swap."""
    ordered, settled = {}, dict(values)
    for slot in action_type.slots:
        given = list(objects[slot.name])
        if not slot.several or slot.ordered:
            ordered[slot.name] = given
            continue
        ordered[slot.name] = sorted(given, key=lambda m: m.fingerprint)
        if slot.complement and len(given) != 2:
            settled[slot.complement] = action_type.grid[slot.complement][
                0
            ]  # no share among three: the value means nothing
        elif slot.complement and ordered[slot.name] != given:
            settled[slot.complement] = round(1.0 - float(settled[slot.complement]), 6)
    return ordered, settled


def check_values(action_type: ActionType, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The value of every hyperparameter, the only one of a list of one filled in.

    Raises:
        IllegalAction: a key is unknown or missing, or a value is not on its list.
    """
    values = {key: given.get(key, allowed[0]) for key, allowed in action_type.grid.items()}
    for key, value in given.items():
        if key not in action_type.grid:
            raise IllegalAction(
                f"{action_type.name} has no hyperparameter {key!r}; it has {', '.join(action_type.grid)}"
            )
        if value not in action_type.grid[key]:
            allowed = ", ".join(map(str, action_type.grid[key]))
            raise IllegalAction(f"{action_type.name}.{key} = {value!r} is not on the grid; allowed: {allowed}")
    return values
