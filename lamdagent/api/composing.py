"""From an experiment's name and overrides to the composed configuration, as the command line composes it."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as compose_in_hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lamdagent.config import conf_folder
from lamdagent.errors import UserError

Overrides = Mapping[str, Any] | Sequence[str]
"""Either `{"budget.trials": 4, "agent": "random"}` or Hydra's words `["budget.trials=4", "agent=random"]`."""
UNQUOTED = re.compile(r"[A-Za-z_][\w./-]*")
"""Texts that mean the same in Hydra's grammar without quotes."""
WORDS = ("null", "true", "false", "nan", "inf", "yes", "no", "on", "off", "none")
"""Texts that would be read as something else."""
_hydra_is_ours = threading.Lock()
"""Hydra keeps its search path in one place per process."""


@dataclass(frozen=True)
class Composed:
    """A configuration and how it came about."""

    node: DictConfig
    overrides: tuple[str, ...]
    """Hydra's words; what they do not name is as the files say."""

    @property
    def yaml(self) -> str:
        """The whole of it, with every interpolation resolved."""
        return OmegaConf.to_yaml(self.node, resolve=True)


def compose(experiment: str | None, overrides: Overrides = (), config_dir: str | Path | None = None) -> Composed:
    """The configuration of `python -m lamdagent --config-dir DIR +experiment=NAME OVERRIDES`.

    Args:
        experiment: A file in the group `experiment`, without `.yaml`; None: what the overrides choose.
        overrides: A mapping from keys to values, or Hydra's words.
        config_dir: A folder with groups of the user's own, searched after the shipped ones.

    Raises:
        UserError: the folder does not exist, or Hydra cannot compose or read this.
    """
    words = [f"+experiment={experiment}"] if experiment else []
    words += _words(overrides)
    with faults_told(words), _hydra(), initialize_config_dir(str(conf_folder()), "lamdagent", version_base="1.3"):
        return Composed(compose_in_hydra("config", [*words, *_search_path(config_dir)]), tuple(words))


@contextmanager
def faults_told(words: Sequence[str], commands: Sequence[str] = ()) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML cannot read into the user's fault.

    Args:
        words: what Hydra composes.
        commands: the first words of a command line that are none of Hydra's.

    Raises:
        UserError: with their message, and what to do about it.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        from lamdagent.api.advice import advice

        raise UserError(f"the configuration cannot be composed: {advice(error, words, commands)}") from error


@contextmanager
def _hydra() -> Iterator[None]:
    """A Hydra of our own: what the calling program has initialised, or not, is as before at the end."""
    with _hydra_is_ours:
        theirs, version = GlobalHydra.instance(), VersionBase.instance()
        ours = copy(theirs)
        ours.clear()
        GlobalHydra.set_instance(ours)
        VersionBase.set_instance(copy(version))
        try:
            yield
        finally:
            GlobalHydra.set_instance(theirs)
            VersionBase.set_instance(version)


def _search_path(config_dir: str | Path | None) -> list[str]:
    if config_dir is None:
        return []
    folder = Path(config_dir).absolute()
    if not folder.is_dir():
        raise UserError(f"config_dir: got {str(config_dir)!r}, wanted a folder that exists")
    return [f"hydra.searchpath=[{_value(f'file://{folder}')}]"]


def _words(overrides: Overrides) -> list[str]:
    """As Hydra's words; a dotted key of a mapping may be new, and an unknown one is told with all other faults."""
    if isinstance(overrides, str):
        raise UserError(f"overrides: got the text {overrides!r}, wanted a mapping or a list of key=value")
    if not isinstance(overrides, Mapping):
        return [str(word) for word in overrides]
    return [_word(str(key), value) for key, value in overrides.items()]


def _word(key: str, value: Any) -> str:
    if key.startswith("~"):
        return key if value is None else f"{key}={_value(value)}"
    force = "++" if "." in key and not key.startswith("+") else ""
    return f"{force}{key}={_value(value)}"


def _value(value: Any) -> str:
    """In Hydra's grammar, so that it reads back as the same."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(str(key))}:{_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_value, value)) + "]"
    return _text(str(value))


def _key(text: str) -> str:
    """Keys have no quotes in Hydra's grammar."""
    return re.sub(r"([\\()\[\]{}:=,\s])", r"\\\1", text)


def _text(text: str) -> str:
    if UNQUOTED.fullmatch(text) and text.lower() not in WORDS:
        return text
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    tail = escaped[len(escaped.rstrip("\\")) :]  # backslashes before a quote mean something
    return f"'{escaped}{tail}'"
