"""The settings of the searches that made a pipeline, merged into one configuration with the entries its steps use."""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lamdagent.config import conf_folder
from lamdagent.errors import UserError
from lamdagent.memory.references import recorded_inputs
from lamdagent.memory.trial import Trial
from lamdagent.objects.object_kinds import section_of
from lamdagent.scaling.pipeline_records import PipelineRecords
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

Settings = dict[str, Any]
"""A configuration, or a part of one, as plain values."""
MAKERS = ("function", "slots")
"""Keys of an action that decide its result, besides version and hyperparameters."""
WORDS = ("description", "license")
"""Keys of a dataset that decide no result."""


def merge_settings(past: PipelineRecords) -> Settings:
    """The settings of the first run's search, with exactly the actions and datasets of all steps.

    Raises:
        UserError: two searches use one name for different things, or the settings of a step's search lack it.
    """
    actions = [record for record in past.records if record.kind == "action"]
    settings = deepcopy(dict(past.settings[actions[0].search_run_id]))
    found: dict[str, Settings] = {"actions": {}, "datasets": {}, "resources": {}}
    for record in actions:
        for section, name in _named(record):
            given = (past.settings[record.search_run_id].get(section) or {}).get(name)
            if given is None:
                raise UserError(f"The settings of the search of the run {record.run_id} have no {section}.{name}")
            known = found[section].setdefault(name, deepcopy(given))
            _agree(f"{section}.{name}", known, given)
    for name, action in found["actions"].items():
        action["version"] = _version(name, action)
    return settings | found


def put_bases(
    settings: Settings, past: PipelineRecords, last: Sequence[Trial], given: Mapping[Any, Any], base: str | None
) -> dict[str, str]:
    """Reduce `models` to the initial models of the pipelines, with `base` in place of the one they descend from.

    Args:
        settings: The configuration to change.
        past: The pipelines.
        last: The last step of each.
        given: The models that the command line has put under `models`.
        base: A name in `given` or in `settings`, or a source; None: no model is replaced.

    Returns:
        Fingerprint of the replaced model -> name of its replacement; empty without `base`.

    Raises:
        UserError: the pipelines descend from several initial models, or a run lacks the source of its model.
    """
    known = {**settings["models"], **given}
    then = dict(_initial(past, settings["models"]))
    settings["models"] = {name: spec for name, spec in then.values()}
    settings["models"] |= _below(settings["models"], known)
    if base is None:
        return {}
    descended = {trial.model.base for trial in last if trial.model}
    if len(descended) > 1 or not descended <= then.keys():
        names = ", ".join(name for name, _ in then.values())
        raise UserError(f"base: got {base!r}, but the pipelines do not all descend from one initial model: {names}")
    (old,) = descended
    name = base if base in known else "base"
    del settings["models"][then[old][0]]
    settings["models"][name] = known.get(base) or {"source": base}
    return {old: name}


def _named(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Section and key of every entry of the settings that a step uses."""
    yield "actions", record.tags.get(schema.ACTION, "")
    refs = (ref for inside in recorded_inputs(record).values() for ref in inside)
    yield from ((section_of(ref.kind), ref.name) for ref in refs if not (ref.is_model or ref.run_id))


def _agree(path: str, known: Settings, given: Settings) -> None:
    """Add the values of `given` to the grids of `known`.

    Raises:
        UserError: the two entries describe different things.
    """
    action = path.startswith("actions.")
    keys = MAKERS if action else [key for key in {**known, **given} if key not in WORDS]
    if odd := [key for key in keys if known.get(key) != given.get(key)]:
        raise UserError(f"{path}: the searches that made the steps of the pipeline have another {odd[0]} for it each")
    for key, values in (given.get("hyperparameters") or {}).items() if action else ():
        grid = _listed(known["hyperparameters"].get(key, []))
        known["hyperparameters"][key] = grid + [value for value in _listed(values) if value not in grid]


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list) else [values]


def _version(name: str, action: Settings) -> str:
    """The version of the code that will run: for an action of this package the present one."""
    file = conf_folder() / "action" / f"{name}.yaml"
    shipped = OmegaConf.load(file) if file.is_file() else None
    if isinstance(shipped, DictConfig) and shipped.get("function") == action.get("function"):
        action = {"version": shipped.get("version")}
    return str(action.get("version") or "1")


def _below(models: Mapping[str, Settings], known: Mapping[str, Settings]) -> dict[str, Settings]:
    """The models under the adapters in `models`, down to whole models, that `models` lacks."""
    found: dict[str, Settings] = {}
    names = [spec["base"] for spec in models.values() if spec.get("base")]
    while names:
        name = names.pop()
        if name not in models and name not in found:
            found[name] = known[name]
            names += [base] if (base := known[name].get("base")) else []
    return found


def _initial(past: PipelineRecords, models: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, Settings]]]:
    """Fingerprint -> name and settings of every initial model, with the revision that was used."""
    for record in past.records:
        if record.kind != "base":
            continue
        origin = json.loads(record.tags.get(schema.ORIGIN) or "{}")
        if not origin.get("source"):
            raise UserError(f"The run {record.run_id} does not say where its initial model came from")
        place = (origin["source"], origin.get("file"))
        same = (name for name, one in models.items() if (one.get("source"), one.get("file")) == place)
        name = next(same, f"base_{record.run_id[:8]}")
        changes = {"license": origin.get("license") or "", "base": (models.get(name) or {}).get("base")}
        yield record.tags.get(schema.MODEL_FINGERPRINT, ""), (name, {**origin, **changes})
