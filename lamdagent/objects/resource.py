"""An object that is neither model nor dataset: a file or folder that the user declares and an action takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from lamdagent.objects.reference import ObjectRef


@dataclass(frozen=True)
class Resource:
    """A resource that has passed the check of its kind, such as a reward model."""

    name: str
    """The key under `resources` in the configuration."""
    kind: str
    """The name of its `object_kinds.ObjectKind`; slots of that kind take it."""
    description: str
    """One line that the agent reads."""
    fingerprint: str
    """Hex digest of its content; part of the fingerprint of every action that takes it."""
    path: str
    """The file or folder that the action's function gets."""
    license: str = ""
    """As declared by the user; carried to the model card."""

    @cached_property
    def ref(self) -> ObjectRef:
        """The reference to it."""
        return ObjectRef(self.kind, self.name, "", self.fingerprint)

    def fits(self, kind: str, columns: Iterable[str] = ()) -> bool:
        """True if a slot of `kind` takes it; a resource has no columns."""
        return self.kind == kind and not tuple(columns)
