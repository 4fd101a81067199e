"""The one prompt of tool use: the same for base and trained models, for training rows and evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, str]

NONE = "none"
"""The reply where no function fits."""

TYPES = {
    "string": "str",
    "integer": "int",
    "float": "float",
    "boolean": "bool",
    "array": "list",
    "tuple": "tuple",
    "dict": "dict",
    "any": "any",
}


def signature(function: Mapping[str, Any]) -> str:
    """A function as `name(a: int, b: str = "x")  # what it does`, a fifth of the length of its JSON schema."""
    schema = function["parameters"]
    required = set(schema.get("required", ()))
    parameters = [_parameter(name, details, name in required) for name, details in schema["properties"].items()]
    return f"{function['name']}({', '.join(parameters)})  # {_sentence(function.get('description', ''))}"


def _parameter(name: str, details: Mapping[str, Any], required: bool) -> str:
    text = f"{name}: {_type(details)}"
    return text if required else f"{text} = {details.get('default')!r}"


def _type(details: Mapping[str, Any]) -> str:
    """The Python name of a type; an enumeration shows its values."""
    if options := details.get("enum"):
        return " | ".join(repr(option) for option in options)
    name = TYPES[details["type"]]
    inner = details.get("items", {}).get("type")
    return f"{name}[{TYPES[inner]}]" if inner in TYPES else name


def _sentence(description: str) -> str:
    """Its first sentence on one line."""
    return " ".join(description.split()).split(". ")[0].rstrip(".")
