"""The inputs of a recorded action as references, and the tag that keeps them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lamdagent.actions.action import Action
from lamdagent.objects.dataset import is_made
from lamdagent.objects.reference import DATASET, MODEL, ObjectRef
from lamdagent.text import parse_json
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord

Inputs = Mapping[str, tuple[ObjectRef, ...]]
"""Slot name -> references to the objects in it."""
MODEL_NAME = "model-"
"""How the names of all models begin, and of nothing else that runs before the tag `schema.INPUTS` have used."""


def inputs_tag(action: Action, parents: Sequence[str]) -> dict[str, str]:
    """The tag `schema.INPUTS` of an action's run; none where it would be longer than a tag can be.

    `parents`: the run ids of `action.made`, in its order. `recorded_inputs` reads a run without the tag by its names.
    """
    runs = {thing.ref: run_id for thing, run_id in zip(action.made, parents, strict=True)}
    inputs = {
        slot: [
            {
                "kind": ref.kind,
                "name": ref.name,
                "run_id": runs.get(ref, ref.run_id),
                "fingerprint": ref.fingerprint,
            }
            for ref in refs
        ]
        for slot, refs in action.inputs.items()
    }
    text = json.dumps(inputs, separators=(",", ":"))
    return {schema.INPUTS: text} if len(text) <= schema.MAX_TAG else {}


def recorded_inputs(record: RunRecord) -> Inputs:
    """Inputs of the run's action by its tags; none where these make no sense, since anyone may write a tag."""
    told = parse_json(record.tags.get(schema.INPUTS), None)
    found = _referenced(told) if told else None
    return _named(record) if found is None else found


def _referenced(told: Any) -> Inputs | None:
    """The content of the tag; None if it is not what this package writes."""
    try:
        return {str(slot): tuple(_reference(**one) for one in inside) for slot, inside in told.items()}
    except (AttributeError, TypeError):
        return None


def _reference(kind: str, name: str, run_id: str, fingerprint: str, **_: Any) -> ObjectRef:
    if not all(isinstance(text, str) for text in (kind, name, run_id, fingerprint)):
        raise TypeError(f"a reference to {name!r} holds something else than text")
    return ObjectRef(kind, name, run_id, fingerprint)


def _named(record: RunRecord) -> Inputs:
    """The inputs of a run that only names them: the parents are the runs of those that runs made, in slot order."""
    told = parse_json(record.tags.get(schema.SLOTS), {})
    told = told if isinstance(told, dict) else {}
    slots = {slot: list(map(str, names)) for slot, names in told.items() if isinstance(names, list)}
    names = [name for inside in slots.values() for name in inside]
    from_runs = [name for name in names if name.startswith(MODEL_NAME) or is_made(name)]
    known = dict(zip(from_runs, record.parents, strict=True)) if len(from_runs) == len(record.parents) else {}
    return {slot: tuple(_from_name(name, known.get(name, "")) for name in inside) for slot, inside in slots.items()}


def _from_name(name: str, run_id: str) -> ObjectRef:
    return ObjectRef(MODEL if name.startswith(MODEL_NAME) else DATASET, name, run_id)
