"""A composed YAML node as plain values: variables and references are filled in, what is missing is told."""

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lamdagent.settings.fault import Fault, Path, dotted

VARIABLE = re.compile(r"\$\{oc\.env:\s*([^},\s]+)\s*\}")


def plain(node: DictConfig, faults: list[Fault]) -> dict[Any, Any]:
    """The values of `node`; a key whose value cannot be told is left out, and added to `faults`."""
    return dict(_pairs(node, (), faults))


def _pairs(node: DictConfig | ListConfig, path: Path, faults: list[Fault]) -> Iterator[tuple[Any, Any]]:
    keys: Any = range(len(node)) if isinstance(node, ListConfig) else list(node.keys())
    for key in keys:
        place = (*path, key)
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            faults.append(Fault(place, _reason(node, key, dotted(place), error)))
            continue
        if isinstance(value, DictConfig):
            yield key, dict(_pairs(value, place, faults))
        elif isinstance(value, ListConfig):
            yield key, [item for _, item in _pairs(value, place, faults)]
        else:
            yield key, value


def _reason(node: DictConfig | ListConfig, key: Any, path: str, error: OmegaConfBaseException) -> str:
    if isinstance(error, MissingMandatoryValue):
        return f"{path}: ??? stands for a value that you give; give one, such as {path}=..."
    text = str(OmegaConf.to_container(node, resolve=False)[key])  # type: ignore[index]
    if (found := VARIABLE.search(text)) and f"'{found[1]}'" in str(error):
        default = f"${{oc.env:{found[1]},VALUE}}"
        return f"{path}: the environment variable {found[1]} is not set; set it, or name a default: {default}"
    return f"{path}: got {text!r}, which refers to nothing ({str(error).splitlines()[0]})"
