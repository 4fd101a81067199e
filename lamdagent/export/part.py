"""One model's share of the folder of plain commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lamdagent.objects.model import Model


@dataclass(frozen=True)
class Part:
    """How one model comes to be."""

    comment: str
    """One line; stands above its commands."""
    commands: tuple[str, ...]
    """Lines of rebuild.sh, run in the folder itself."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Relative path -> text."""
    packages: tuple[str, ...] = ()
    """Packages that have to be installed, in the versions used here."""


def place(model: Model) -> str:
    """The model's own folder, below the folder of the commands."""
    return f"./models/{model.name}"


def title(model: Model, text: str) -> str:
    """A comment: one line, whatever the user's names hold."""
    return f"{model.name}: {' '.join(text.split())}"
