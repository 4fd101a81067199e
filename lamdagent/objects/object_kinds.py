"""The kinds of objects that an action can take: one record for each says how such an object is declared and known.

A user adds one with `KIND = resource_kind("reward_model")` in a module of their own, and names it `module:KIND` in the
YAML of a resource and of a slot (docs/extending.md).
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamdagent.errors import UserError
from lamdagent.functions import load_function
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.kinds import KINDS as DATASET_KINDS
from lamdagent.objects.kinds import is_kind
from lamdagent.objects.reference import DATASET, MODEL
from lamdagent.objects.resource import Resource
from lamdagent.objects.rows import load_dataset

if TYPE_CHECKING:  # it brings OmegaConf, and every worker imports this room
    from lamdagent.config import ResourceConfig

PIECE = 1 << 22
"""Bytes that are read at once."""


@dataclass(frozen=True)
class ObjectKind:
    """A kind of object: its name, where the user declares such objects, and how one is checked."""

    name: str
    """`ObjectRef.kind`; a resource's is also what a slot says."""
    section: str
    """The section of the configuration that declares the objects, by name."""
    load: Callable[[str, Any], Dataset | Resource] | None
    """(name, settings) -> the checked object with its fingerprint and local path, or UserError. None for models: a job
    fetches and converts them, since that may take an hour."""
    made_by_actions: bool = False
    """True if actions make such objects, too: those have a run and are found in the store."""


def resource_kind(
    name: str,
    faults: Callable[[Path], Iterable[str]] = lambda path: (),
    fingerprint: Callable[[Path], str] | None = None,
) -> ObjectKind:
    """A kind of file or folder that the user declares under `resources` and an action's function gets as a path.

    Args:
        name: What a slot's `kind` says, such as `reward_model`; prompts show it with spaces.
        faults: Path -> sentences that say what is wrong with it and what to do.
        fingerprint: Path -> hex digest of what decides an action's result; default: of all files' names and contents.
    """
    load = partial(_load_resource, name, faults, fingerprint or fingerprint_of_files)
    return ObjectKind(name, "resources", load)


OBJECT_KINDS: Mapping[str, ObjectKind] = {
    MODEL: ObjectKind(MODEL, "models", None, made_by_actions=True),
    DATASET: ObjectKind(DATASET, "datasets", load_dataset, made_by_actions=True),
}
"""The kinds that this package has, by name."""
RESERVED = (*OBJECT_KINDS, "models", *DATASET_KINDS)
"""Names that no other kind can have: slots use these words."""


def section_of(kind: str) -> str:
    """The section of the configuration that declares objects of the kind of that name."""
    return OBJECT_KINDS[kind].section if kind in OBJECT_KINDS else "resources"


def noun_of(slot_kind: str) -> str:
    """Noun for the object in a slot, for prompts: `model`, `sft dataset` or `reward model`."""
    if slot_kind not in ("model", "models") and is_kind(slot_kind):
        return f"{slot_kind} dataset"
    return slot_kind.replace("_", " ")


def find_kind(path: str, given: str) -> ObjectKind:
    """The kind that the user names as `module:NAME`; `path` is where in the configuration.

    Raises:
        UserError: there is none, or its name is taken.
    """
    found = load_function(given, path)
    if not isinstance(found, ObjectKind) or found.section != "resources":
        raise UserError(f"{path}: {given} is {type(found).__name__}, wanted what resource_kind gives")
    if found.name in RESERVED:
        raise UserError(f"{path}: {given} has the name {found.name!r}; taken are {', '.join(RESERVED)}")
    return found


def load_resource(name: str, settings: "ResourceConfig") -> Resource:
    """The resource that the settings at `resources.<name>` declare.

    Raises:
        UserError: its kind is not known, or it is not what its kind wants.
    """
    kind = find_kind(f"resources.{name}.kind", settings.kind)
    found = kind.load(name, settings) if kind.load else None
    if not isinstance(found, Resource):
        raise UserError(f"resources.{name}.kind: {settings.kind} does not load resources")
    return found


def _load_resource(
    kind: str,
    faults: Callable[[Path], Iterable[str]],
    fingerprint: Callable[[Path], str],
    name: str,
    settings: "ResourceConfig",
) -> Resource:
    path = Path(settings.source).expanduser().absolute()
    where = f"resources.{name}.source"
    if not settings.source or not path.exists():
        raise UserError(f"{where}: there is no file or folder {settings.source!r} (looked in {Path.cwd()})")
    if found := list(faults(path)):
        raise UserError("; ".join(f"{where}: {fault}" for fault in found))
    return Resource(name, kind, settings.description, fingerprint(path), str(path), settings.license)


def fingerprint_of_files(path: Path) -> str:
    """Hex digest of a file, or of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        name = str(file.relative_to(path)) if file != path else ""
        digest.update(f"{name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while piece := stream.read(PIECE):
                digest.update(piece)
    return digest.hexdigest()[:32]
