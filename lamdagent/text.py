"""Text from runs, datasets and configuration is data: made harmless before it is shown, stored or put in a prompt."""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any


def one_line(text: object, limit: int = 200) -> str:
    """`text` as harmless data: one line, no control or invisible characters, at most `limit` characters."""
    kept = (
        " " if c.isspace() else c for c in str(text)[: 4 * limit] if c.isspace() or unicodedata.category(c)[0] != "C"
    )
    line = " ".join("".join(kept).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def quoted(text: object, limit: int = 200) -> str:
    """`one_line` in double quotes, those inside escaped."""
    return json.dumps(one_line(text, limit), ensure_ascii=False)


def as_data(text: str, limit: int) -> str:
    """Lines of `text`, each cleaned and marked with ">": none passes for a part of the prompt. Cut at `limit`."""
    lines, room = [], limit
    for line in text.split("\n"):
        indent = " " * min(8, len(line) - len(line.lstrip(" ")))
        lines.append(f"> {indent}{one_line(line, min(1000, max(1, room)))}")
        room -= len(lines[-1])
        if room <= 0:
            lines.append("> … (cut)")
            break
    return "\n".join(lines)


def parse_json(text: str | None, default: Any) -> Any:
    """The value of JSON text; `default` for no text and for text that is no JSON."""
    try:
        return json.loads(text) if text else default
    except (ValueError, RecursionError):
        return default


def json_text(value: Mapping[str, Any]) -> str:
    """`value` as indented JSON; what JSON does not know becomes text."""
    return json.dumps(dict(value), indent=2, default=str)


def cut(value: object, limit: int) -> str:
    """`value` as text of at most `limit` characters; a cut one ends with an ellipsis."""
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def hide_passwords(text: object) -> str:
    """`text` with `***` for the password of every address in it, as it may be shown and stored."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", str(text))


def hide_logins(text: str) -> str:
    """`text` with `***` for user and password of every address in it: a user name may be a token."""
    return re.sub(r"//[^/@\s]+@", "//***@", text)


def without_login(address: str) -> str:
    """`address` without user and password, as it may be published."""
    return re.sub(r"//[^/\s]*@", "//", address)
