"""The one prompt of tool use: the same for base and trained models, of the same parts in training rows and evaluation.

A function is shown as `book_table(restaurant=<str>, people=<int>, outdoor=<bool>?)  # Reserves a table`, a fifth of the
length of its JSON schema and close to the call that is asked for: of the forms that were tried on the untrained
SmolLM2-135M-Instruct, the one that it does best with (see CHANGELOG.md), so that a gain over it is not mere format.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, str]

NONE = "none"
"""The reply where no function fits."""

SYSTEM = (
    "Answer with one call of a function, every argument by name, and nothing else. "
    "Leave out an argument with a question mark unless the question states it. "
    f"If none of the functions can answer the question, reply: {NONE}"
)

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
    """A function on one line: name, parameters with types, a question mark after those that may be left out."""
    schema = function["parameters"]
    required = set(schema.get("required", ()))
    parameters = [_parameter(name, details, name in required) for name, details in schema["properties"].items()]
    return f"{function['name']}({', '.join(parameters)})  # {_sentence(function.get('description', ''))}"


def _parameter(name: str, details: Mapping[str, Any], required: bool) -> str:
    return f"{name}=<{_type(details)}>{'' if required else '?'}"


def _type(details: Mapping[str, Any]) -> str:
    """The Python name of a type; an enumeration shows its values."""
    if options := details.get("enum"):
        return " | ".join(f'"{option}"' if isinstance(option, str) else repr(option) for option in options)
    name = TYPES[details["type"]]
    inner = details.get("items", {}).get("type")
    return f"{name}[{TYPES[inner]}]" if inner in TYPES else name


def _sentence(description: str) -> str:
    """Its first sentence on one line."""
    return " ".join(description.split()).split(". ")[0].rstrip(".")


def ask(functions: Sequence[Mapping[str, Any]], question: str) -> str:
    """The user's message."""
    return _ask([signature(function) for function in functions], question)


def _ask(signatures: Sequence[str], question: str) -> str:
    return "Functions:\n" + "\n".join(signatures) + f"\nQuestion: {question}"


EXAMPLES: tuple[tuple[str, str], ...] = (
    (
        _ask(
            ["convert_currency(amount=<float>, source=<str>, target=<str>)  # Converts money between currencies"],
            "Who painted the Mona Lisa?",
        ),
        NONE,
    ),
    (
        _ask(
            ["book_table(restaurant=<str>, people=<int>, outdoor=<bool>?)  # Reserves a table at a restaurant"],
            "Reserve a table for four at Luigi's.",
        ),
        'book_table(restaurant="Luigi\'s", people=4)',
    ),
)
"""Worked examples, message and reply: one where no function fits, one with a call."""


def messages(functions: Sequence[Mapping[str, Any]], question: str, examples: bool = True) -> list[Message]:
    """As chat messages: with the worked examples as evaluation sends them, without as training rows hold them.

    Half of the evaluated prompt are examples, the same in every row: training learns as much without them
    (bfcl 0.36 against 0.34) at two thirds of the cost.
    """
    turns = [{"role": "system", "content": SYSTEM}]
    for asked, answered in EXAMPLES if examples else ():
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*turns, {"role": "user", "content": ask(functions, question)}]
