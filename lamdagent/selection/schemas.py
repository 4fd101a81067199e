"""The form of the two answers: for people's eyes, and as JSON schemas for providers that take one."""

from collections.abc import Mapping
from typing import Any

from lamdagent.actions.action import ActionType

TYPE_FORM = '{"reason": "<one or two sentences>", "type": <number from the list>}'
CHOICE_FORM = '{"reason": "<one or two sentences>", "choice": <number from the list>}'


def open_grid(action_type: ActionType) -> dict[str, tuple[Any, ...]]:
    """The hyperparameters that there is a choice of."""
    return {key: tuple(values) for key, values in action_type.grid.items() if len(values) > 1}


def object_form(action_type: ActionType) -> str:
    """The answer that is asked for, as a person would write it down."""
    form = {"reason": '"<one or two sentences>"'}
    form |= {slot.name: "[<numbers>]" if slot.maximum > 1 else "<number>" for slot in action_type.slots}
    form |= {key: "<value>" for key in open_grid(action_type)}
    return "{" + ", ".join(f'"{key}": {value}' for key, value in form.items()) + "}"


def type_schema(count: int) -> dict[str, Any]:
    """JSON schema of the first answer, for `count` options."""
    return _schema({"type": {"type": "integer", "enum": list(range(1, count + 1))}})


def choice_schema(count: int) -> dict[str, Any]:
    """JSON schema of a pick from a shortlist of `count`; 0 = none of them."""
    return _schema({"choice": {"type": "integer", "enum": list(range(count + 1))}})


def object_schema(action_type: ActionType, counts: Mapping[str, int]) -> dict[str, Any]:
    """JSON schema of the second answer; `counts` says how many options each slot shows."""
    fields: dict[str, Any] = {}
    for slot in action_type.slots:
        number = {"type": "integer", "enum": list(range(1, counts[slot.name] + 1))}
        fields[slot.name] = {"type": "array", "items": number} if slot.maximum > 1 else number
    return _schema(fields | {key: {"enum": list(values)} for key, values in open_grid(action_type).items()})


def _schema(fields: Mapping[str, Any]) -> dict[str, Any]:
    properties = {"reason": {"type": "string"}, **fields}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
