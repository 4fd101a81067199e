"""A model in the pool: where its weights are and what made it. A value, never loaded weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lamdagent.objects.reference import MODEL, ObjectRef


@dataclass(frozen=True)
class Origin:
    """Source of an initial model, as the user declared it."""

    source: str
    """Hub id, local folder, .gguf file, MLflow URI, pypi:NAME or function:module:name, see `sources.py`."""
    file: str | None = None
    """GGUF file in a hub repository."""
    revision: str | None = None
    """The hub's commit, or what the user gave."""
    license: str = ""
    """As declared, else as the model's own card says; empty when unknown."""
    base: "Origin | None" = None
    """Origin of the model that an adapter is applied to; None for anything else."""

    def told(self) -> dict[str, Any]:
        """As plain values; `base` only where there is one, so that older versions on the same server can read it."""
        values = {"source": self.source, "file": self.file, "revision": self.revision, "license": self.license}
        return values | ({"base": self.base.told()} if self.base else {})

    @staticmethod
    def of(values: Mapping[str, Any]) -> "Origin":
        """From plain values, such as a spec of sources.py or what `told` gives."""
        base = values.get("base")
        plain = (values.get("file"), values.get("revision"), values.get("license") or "")
        return Origin(values["source"], *plain, Origin.of(base) if base else None)


@dataclass(frozen=True)
class Model:
    """One model, initial or produced. Equal in form for both, so that no policy prefers a name (paper, debiasing)."""

    fingerprint: str
    """Hex digest of what the model is: of its weights (initial) or of the action that makes it (produced)."""
    location: str
    """A local folder in Hugging Face layout, or an MLflow artifact URI such as `runs:/<run id>/model`."""
    run_id: str | None = None
    """The MLflow run that scored it (base) or made it (action)."""
    base: str = ""
    """Fingerprint of the initial model that it descends from; its own when initial."""
    depth: int = 0
    """Actions on the longest path from an initial model; 0 when initial."""
    architecture: str = ""
    """`architectures[0]` of its config.json; merges need it equal. Empty when unknown."""
    vocabulary: int = 0
    """Rows of its embedding; merges need it equal. 0 when unknown."""
    origin: Origin | None = field(default=None, compare=False)
    """Origin of an initial model; None for a produced one."""

    sha256: str = field(default="", compare=False)
    """Checksum of the weights that an action made, see checksum.py; empty when unknown."""
    bytes: int = field(default=0, compare=False)
    """Size of its files; 0 when unknown."""
    frame: str = field(default="", compare=False)
    """`compatibility.MergeSignature.digest` of its files; merges need it equal. Empty when it is
    not known: then its base's counts."""

    @property
    def name(self) -> str:
        """The neutral name that people, prompts and MLflow see."""
        return f"model-{self.fingerprint[:8]}"

    @cached_property
    def ref(self) -> ObjectRef:
        """The reference to it."""
        return ObjectRef(MODEL, self.name, self.run_id or "", self.fingerprint)

    @property
    def initial(self) -> bool:
        """True for a model that the user declared, False for one that an action made."""
        return self.depth == 0
