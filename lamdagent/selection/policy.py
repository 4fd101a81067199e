"""The seam of selection: everything that a policy may know, and everything that it must say."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from lamdagent.actions.action import Action
from lamdagent.enumeration.space import ActionSpace
from lamdagent.memory.trial import History


@dataclass(frozen=True)
class Turn:
    """One turn: all that a policy gets to choose the next action."""

    history: History
    space: ActionSpace
    """The legal actions that nobody has tried and that are not pending."""
    number: int
    """How many actions this search has asked for before; with `seed` it makes every random choice repeatable."""
    seed: int = 0
    memory: Callable[[], str] = str
    """Gives the memory text (paper, step 4), which takes a while to write; the same at each call."""
    pending: tuple[Action, ...] = ()
    """Actions that run now, elsewhere."""


@dataclass(frozen=True)
class Decision:
    """One action and why."""

    action: Action
    policy: str
    """Which policy decided; a fallback names itself."""
    reason: str
    """At most a few sentences, for a person."""
    prompt_version: str = ""
    """Digest of the prompt files; empty without an LLM."""
    offered: tuple[str, ...] = ()
    """Candidates as they were shown or ranked, best first, cut to a readable number."""
    traces: tuple[str, ...] = ()
    """MLflow trace ids of the calls behind it."""
    details: dict[str, Any] = field(default_factory=dict)
    """Predictions, raw replies, notes such as a fallback: written to `decision.json` on the run."""
    cost_usd: float = 0.0
    """Cost of the LLM calls."""
    replay_of: str = ""
    """Run id of the step that it repeats at another scale."""


class Policy(Protocol):
    """Chooses the next action."""

    def __call__(self, turn: Turn) -> Decision | None:
        """One legal action; None only when the space has nothing left. Never raises for what an LLM said."""
        ...
