"""Advice about a configuration that Hydra cannot compose: its own words first, then a line of ours."""

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lamdagent.config import Config, conf_folder
from lamdagent.settings.fault import Fault
from lamdagent.settings.reading import typed

ASKING = re.compile(r"Could not (?:override|append to|delete from) .*?'([^']+)'")
NESTED = re.compile(r"'\w+/(\w+)/([\w.-]+)'")
TWICE = re.compile(r"Multiple values for ([\w/@.]+)\. .*'override [^:]+: (.+)'")


def advice(error: Exception, words: Sequence[str], commands: Sequence[str] = ()) -> str:
    """The message for the user.

    Args:
        error: what Hydra, OmegaConf or YAML raised while composing.
        words: the arguments of the command line.
        commands: the first words that are commands.
    """
    said = str(error).strip() or str(error.__cause__ or type(error).__name__)
    if isinstance(error, UnicodeDecodeError):
        said = f"a file of it is no text in UTF-8 ({said})"
    if word := next(_unread(words), ""):
        reasons = [line for line in said.splitlines() if not line.startswith(("Error parsing override", "See http"))]
        return "\n".join([f"{word}: {' '.join(reasons[:1])}", *_of_word(word, commands)])
    return "\n".join([said, *_of_words(said, words), *_of_files(said)])


def _unread(words: Sequence[str]) -> Iterator[str]:
    """The overrides that Hydra's grammar does not take; words after a flag with a value are no overrides."""
    parser = OverridesParser.create()
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-") or (before.startswith("--config-") and "=" not in before) or before in FLAGS:
            continue
        try:
            parser.parse_overrides([word])
        except HydraException:
            yield word


FLAGS = ("-cp", "-cn", "-cd", "--package", "-p", "--cfg", "-c", "--info", "-i", "--experimental-rerun")
"""Hydra's flags whose value is the next word; `--config-...` besides."""


def _of_word(word: str, commands: Sequence[str]) -> Iterator[str]:
    key, equals, value = word.partition("=")
    if not equals:
        yield _of_bare_word(word, commands)
    elif value[:1] in ("{", "["):
        whole = "'+datasets.mine={kind: sft, source: mine.jsonl}'"
        yield f"Brackets have to close, and the shell tears at spaces: single quotes around it all, as in {whole}"
    elif name := _name_in(key):
        group, entry, rest = name
        whole = f"'+{group}={{{entry}: {{{rest}: {value}}}}}'"
        yield f"A dot parts keys; a name that holds one is given in one piece: {whole}"
    elif (quoted := _quoted(key, value)) is not None:
        yield f"A value with such characters is quoted, once for Hydra and once for the shell: {quoted}"
    else:
        yield "Settings are given as key=value, such as budget.trials=3"


def _name_in(key: str) -> tuple[str, str, str] | None:
    """Group, entry and key, where Hydra cannot read the entry's name, as in `models.gpt-4.1-mini.source`."""
    group, _, rest = key.lstrip("+").partition(".")
    entry, dot, last = rest.rpartition(".")
    fails = any(_unread([f"{key}=x"]))
    return (
        (group, entry, last)
        if dot and fails and group in ("models", "datasets", "resources", "actions", "tasks")
        else None
    )


def _of_bare_word(word: str, commands: Sequence[str]) -> str:
    experiments = [path.stem for path in (conf_folder() / "experiment").glob("*.yaml")]
    if word in experiments:
        return f"Did you mean +experiment={word}?"
    if close := difflib.get_close_matches(word, commands, 1):
        return f"There is no such command; did you mean {close[0]}?"
    known = f"; commands: {', '.join(commands)}" if commands else ""
    return f"Settings are given as key=value without spaces, such as +experiment=smoke{known}"


def _quoted(key: str, value: str) -> str | None:
    """The argument as the shell and Hydra take it, where quoting makes it whole."""
    inner = value if value[:1] == value[-1:] != "" and value[0] in "'\"" else value.replace("\\", "\\\\")
    text = inner.strip("\"'") if value[:1] in ("'", '"') else inner
    word = f'{key}="{text.replace(chr(34), chr(92) + chr(34))}"'
    try:
        OverridesParser.create().parse_overrides([word])
    except HydraException:
        return None
    return shlex.quote(word)


def _of_words(said: str, words: Sequence[str]) -> Iterator[str]:
    """For a key that is not there as it was given."""
    asked = ASKING.search(said)
    if asked and "defaults list" not in said:
        named = (each for each in _overrides(words) if each.key_or_group == asked[1] and not each.is_delete())
        for override in named:
            yield from _of_key(override)
    if found := TWICE.search(said):
        group, value = found.groups()
        yield f"On the command line: {group}={value}, once, without +. In a defaults list: override /{group}: {value}"


def _of_key(override: Override) -> Iterator[str]:
    """Why there is no such key: it does not exist, or nothing has chosen what it belongs to."""
    faults: list[Fault] = []
    typed(Config, _nested(override), faults)
    parts = override.key_or_group.split(".")
    yield from (fault.said for fault in faults[:1] if "unknown key" in fault.said or len(fault.path) < len(parts))
    group = parts[0].removesuffix("s")
    if len(parts) > 1 and (conf_folder() / group / f"{parts[1]}.yaml").is_file():
        yield f"Where nothing has chosen {'.'.join(parts[:2])} yet: +{group}={parts[1]}"


def _overrides(words: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides([word for word in words if "=" in word and word[0] != "-"])


def _nested(override: Override) -> dict[str, Any]:
    try:
        value = override.value()
    except Exception:  # a sweep, whose values are of no interest here
        value = ""
    for key in reversed(override.key_or_group.split(".")):
        value = {key: value}
    return value  # type: ignore[return-value]


def _of_files(said: str) -> Iterator[str]:
    """For a file whose defaults list names a group without its slash."""
    groups = {path.name for path in conf_folder().iterdir() if path.is_dir()}
    if (found := NESTED.search(said)) and found[1] in groups:
        yield f"In a defaults list a group begins with a slash: /{found[1]}: {found[2]}"
