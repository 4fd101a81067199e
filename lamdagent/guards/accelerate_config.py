"""The option `accelerate` of an action type, from the user's YAML to a complete launch configuration."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lamdagent.actions.action import ActionType
from lamdagent.config import ExecutionConfig
from lamdagent.devices import gpus
from lamdagent.errors import UserError

KINDS = ("MULTI_GPU", "MULTI_CPU")
"""Values of `distributed_type` under which every process holds the whole model."""

PRECISIONS = (None, "no", "bf16")
"""Values of `mixed_precision` that may stand there: an action trains in bf16 on a GPU that has it, whatever it says."""

ASK = """
import dataclasses, json
from accelerate.commands.config.config_args import ClusterConfig
print(json.dumps([field.name for field in dataclasses.fields(ClusterConfig)]))
"""
"""Asked of a process of its own: accelerate imports torch, which the driver never does."""


@dataclass(frozen=True)
class Machine:
    """The machine that launch configurations are checked against."""

    keys: Sequence[str]
    """The fields of accelerate's launch configuration."""
    gpus: int
    cpus: int


def read(path: str, given: Any) -> dict[str, Any]:
    """The launch configuration that stands at `path`: empty for null, a file's content for its name.

    Raises:
        UserError: there is no such file, or it is no mapping, or nothing in it.
    """
    if given is None:
        return {}
    settings = given
    if isinstance(given, str):
        try:
            settings = yaml.safe_load(Path(given).expanduser().read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{path}: the file {given!r} cannot be read as YAML ({error})") from None
    if not isinstance(settings, Mapping) or not settings:
        wanted = "accelerate's launch configuration, such as {num_processes: 8}, a file of `accelerate config`, or null"
        raise UserError(f"{path}: got {given!r}, wanted {wanted}")
    return dict(settings)


def checked(types: Sequence[ActionType], faults: list[str]) -> list[ActionType]:
    """`types` with complete launch configurations for this machine; what cannot be launched is added to `faults`."""
    if not any(action_type.accelerate for action_type in types):
        return list(types)
    here = machine()
    for action_type in types:
        if action_type.accelerate:
            faults += [f"actions.{action_type.name}.accelerate{fault}" for fault in launch_faults(action_type, here)]
    return [dataclasses.replace(t, accelerate=_complete(t.accelerate, here)) if t.accelerate else t for t in types]


def cluster_faults(types: Sequence[ActionType], execution: ExecutionConfig) -> Iterator[str]:
    """Actions of more processes than what a Ray cluster sets aside for each."""
    if execution.kind != "ray":
        return
    for action_type in types:
        cpu = action_type.accelerate.get("use_cpu")
        aside, key = (execution.cpus, "cpus") if cpu else (execution.gpus or 1, "gpus")
        if action_type.processes > max(aside, 1):
            yield (
                f"actions.{action_type.name}.accelerate.num_processes: got {action_type.processes}, but Ray sets aside "
                f"{aside:g} {key} for an action; set execution.{key}={action_type.processes}"
            )


def need_faults(types: Sequence[ActionType], execution: ExecutionConfig) -> Iterator[str]:
    """Faults for what actions need and this machine does not have; none where they run on other machines."""
    needy = [(action_type, need) for action_type in types for need in action_type.needs]
    if not needy or execution.kind == "ray":
        return
    here = gpus() if any(need == "gpu" for _, need in needy) else 0
    for action_type, need in needy:
        if need == "gpu" and not here:
            yield f"actions.{action_type.name}: it needs a GPU, and there is none here; leave it out"
        elif need != "gpu" and importlib.util.find_spec(need) is None:
            yield f"actions.{action_type.name}: it needs the package {need}, which is not installed; see pyproject.toml"


def machine() -> Machine:
    """This one; takes seconds.

    Raises:
        UserError: accelerate or torch is not there.
    """
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    if asked.returncode:
        last = asked.stderr.strip().splitlines()[-1:]
        raise UserError(f"An action has the option `accelerate`, but accelerate cannot be imported: {''.join(last)}")
    return Machine(json.loads(asked.stdout), gpus(), cpus=len(os.sched_getaffinity(0)))


def _complete(given: Mapping[str, Any], here: Machine) -> dict[str, Any]:
    cpu = bool(given.get("use_cpu", not here.gpus))
    # Port 0: a free one, since another search on this machine may have accelerate's usual one.
    usual = {"distributed_type": KINDS[cpu], "mixed_precision": "no", "main_process_port": 0}
    return {**usual, **{key: value for key, value in given.items() if value is not None}, "use_cpu": cpu}


def launch_faults(action_type: ActionType, here: Machine) -> Iterator[str]:
    """Faults that keep the type's launch configuration from running `here`, each from its key on."""
    given = action_type.accelerate
    if unknown := [str(key) for key in given if key not in here.keys]:
        yield f".{unknown[0]}: unknown key. Allowed: {', '.join(sorted(here.keys))}"
    if given.get("distributed_type", KINDS[0]) not in KINDS:
        yield f".distributed_type: got {given['distributed_type']!r}; allowed: {', '.join(KINDS)}"
    if further := [key for key, value in given.items() if str(key).endswith("_config") and value]:
        yield f".{further[0]}: not supported, since every process holds the whole model; leave it out"
    if given.get("mixed_precision") not in PRECISIONS:
        wanted = "but actions train in bf16 or full precision; leave it out"
        yield f".mixed_precision: got {given['mixed_precision']!r}, {wanted}"
    if given.get("num_machines", 1) != 1:
        yield f".num_machines: got {given['num_machines']!r}, but one action runs on one machine; leave it out"
    yield from _process_faults(action_type, here)


def _process_faults(action_type: ActionType, here: Machine) -> Iterator[str]:
    count = action_type.accelerate.get("num_processes")
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        yield f".num_processes: got {count!r}, wanted 2 or more; without `accelerate`, an action runs in one process"
        return
    cpu = _complete(action_type.accelerate, here)["use_cpu"]
    chosen = str(action_type.accelerate.get("gpu_ids") or "all")
    chosen_gpus = here.gpus if chosen == "all" else len(chosen.split(","))
    devices, what = (here.cpus, "CPU cores") if cpu else (chosen_gpus, "GPUs")
    if count > devices:
        yield f".num_processes: got {count}, but there are {devices} {what} here"
    batches = action_type.grid.get("batch_size")
    if batches is None or "micro_batch_size" not in action_type.grid:
        yield f": {action_type.function} has no batch_size and micro_batch_size to share among processes; leave it out"
        return
    if odd := [size for size in batches if int(size) % count]:
        wanted = f"a multiple of the {count} processes, which share the rows of a step equally"
        yield f".num_processes: batch_size = {odd[0]} must be {wanted}"
