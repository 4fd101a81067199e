"""Parser of an LLM's reply: a choice among what was offered. Tolerant in form, strict in substance."""

import json
import re
from collections.abc import Sequence
from typing import Any

from lamdagent.actions.action import Scalar
from lamdagent.errors import IllegalAction

LONGEST = 20_000
"""Characters of a reply that are read, from its end: an answer comes last."""


def fields_of(text: str) -> dict[str, Any]:
    """The last JSON object in `text` with a key, keys in lower case, inner objects flattened; {} when there is none."""
    text, at, decoder = text[-LONGEST:], 0, json.JSONDecoder()
    found: dict[str, Any] = {}
    while (start := text.find("{", at)) >= 0:
        try:
            value, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1
            continue
        found = value or found
    return _flat(found)


def choose(names: Sequence[str], value: object, offered: int | None = None) -> int:
    """Index of the option that `value` means: its number from 1 (also as text, also `3. name`), or its name.

    Args:
        names: All options; those after the first `offered` were not shown and have no number, only a name.
        value: What the reply says.
        offered: How many options have a number; None = all.

    Raises:
        IllegalAction: when it is none of them, with what is allowed.
    """
    count = len(names) if offered is None else offered
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    number = _number(value)
    if number is not None and 1 <= number <= count:
        return number - 1
    if isinstance(value, str) and number is None:
        matches = [i for i, name in enumerate(names) if _mentions(value, name)]
        exact = [i for i in matches if names[i].casefold() == value.strip().casefold()]
        if len(exact or matches) == 1:
            return (exact or matches)[0]
    raise IllegalAction(f"{_brief(value)} is no number from 1 to {count}")


def choose_several(names: Sequence[str], value: object, offered: int | None = None) -> list[int]:
    """Indices of several options: a list, or text with numbers or names parted by commas, "and" or plus signs."""
    if isinstance(value, str):
        value = [part for part in re.split(r",|;|\+|\band\b", value.strip("[] ")) if part.strip()]
    if not isinstance(value, list):
        raise IllegalAction(f"{_brief(value)} is no list of numbers")
    return [choose(names, one, offered) for one in value]


def choose_value(allowed: Sequence[Scalar], value: object) -> Scalar:
    """The value of the grid that `value` means; numbers may come as text.

    Raises:
        IllegalAction: when it is none of them, with what is allowed.
    """
    for one in allowed:
        if _same(one, value):
            return one
    raise IllegalAction(f"{_brief(value)} is not allowed; allowed are {', '.join(json.dumps(v) for v in allowed)}")


def only_number(text: str) -> int | None:
    """The number in a reply that holds exactly one, for models that answer without JSON."""
    numbers = re.findall(r"\d+", text[:LONGEST])
    return int(numbers[0][:9]) if len(numbers) == 1 else None


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in found.items():
        fields |= {str(k).lower(): v for k, v in value.items()} if isinstance(value, dict) else {key.lower(): value}
    return fields


def _number(value: object) -> int | None:
    """`value` as an option number: 3, 3.0, "3", "#3", "option 3", "3. name"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return int(value) if value == value and abs(value) < 1e9 and value == int(value) else None
    found = (
        re.match(r"\s*(?:option|number|no\.?)?\s*#?(\d{1,9})\s*(?:$|[.):,])(?!\d)", value, re.I)
        if isinstance(value, str)
        else None
    )
    return int(found[1]) if found else None


def _mentions(text: str, name: str) -> bool:
    return bool(name) and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.I) is not None


def _same(one: Scalar, value: object) -> bool:
    if isinstance(one, bool) or isinstance(value, bool) or value is None:
        return str(one).lower() == str(value).strip().lower()
    if isinstance(one, str):
        return isinstance(value, str) and one.casefold() == value.strip().casefold()
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return abs(number - one) <= 1e-9 * abs(one)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
