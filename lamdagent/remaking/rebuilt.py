"""The result of a rebuild."""

from dataclasses import dataclass

from lamdagent.execution.disk import in_words


@dataclass(frozen=True)
class Rebuilt:
    """Weights that are back in their run."""

    run_id: str
    proof: str
    """In what way they are proven, for people."""
    bytes: int
    """Size of the weights."""

    def __str__(self) -> str:
        """One line for people."""
        return f"rebuilt {self.run_id}: {self.proof} ({in_words(self.bytes)})"
