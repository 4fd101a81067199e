"""Reference to an object in an action's slot, a value that outlives it: enough to find it, or to say what is gone."""

from dataclasses import dataclass

MODEL, DATASET = "model", "dataset"
"""Kinds of objects that actions can make; every other one is declared by the user, see object_kinds.py."""


@dataclass(frozen=True)
class ObjectRef:
    """A reference to one object: a model, a dataset or a resource."""

    kind: str
    """`model`, `dataset`, or the name of another `object_kinds.ObjectKind`."""
    name: str
    """The name that people, prompts and MLflow see."""
    run_id: str = ""
    """The MLflow run that made it, or that scored it in case of an initial model; empty for what the user declared."""
    fingerprint: str = ""
    """Hex digest of its content; empty when unknown."""

    @property
    def is_model(self) -> bool:
        """True for a model, False for all that models are trained on or with."""
        return self.kind == MODEL
