"""The inputs of a search, and its result."""

from dataclasses import dataclass, field

from lamdagent.champion.promotion import PromotionResult
from lamdagent.execution.executor import Executor
from lamdagent.loop.run_writer import RunWriter
from lamdagent.loop.shutdown import GracefulShutdown
from lamdagent.loop.terminal import Terminal
from lamdagent.memory.trial import History, Trial
from lamdagent.planning.plan import Plan
from lamdagent.scaling.replay_plan import Replay, Step
from lamdagent.selection.registry import Agent

PATIENCE_S = 600.0
"""Seconds that a search whose work is done waits for its store, in all."""


@dataclass
class Patience:
    """The time that a search still waits for its store."""

    left_s: float = PATIENCE_S


@dataclass(frozen=True)
class World:
    """Everything that a search talks to, made once."""

    plan: Plan
    runs: RunWriter
    """The store, in the words of the search."""
    executor: Executor
    agent: Agent
    view: Terminal
    stop: GracefulShutdown = field(default_factory=GracefulShutdown)
    """The end that the user asks for."""
    replay: Replay | None = None
    """The pipelines that are made again; None: the agent chooses the actions."""
    patience: Patience = field(default_factory=Patience)

    def settled(self) -> bool:
        """Whether the store has everything; waits for a store that is away, but `PATIENCE_S` in all."""
        store = self.runs.store
        patience_s = self.patience.left_s if store.backlog else 0.0
        if patience_s:
            self.patience.left_s = 0.0
            text = f"the store does not answer; waiting up to {patience_s / 60:.0f} minutes (Ctrl-C: later)"
            self.view.say(text, "yellow")
        return store.flush(patience_s)


@dataclass(frozen=True)
class Result:
    """The end of a search."""

    history: History
    champion: Trial | None
    """The best finalist whose gain on the search split is beyond the noise, else a base; None without any score."""
    registered: str | None
    """Messages for the user on where the champion is; None where it is a base, which is not registered."""
    reason: str
    """Why the search ended."""
    promotions: tuple[PromotionResult, ...] = ()
    """The states of the finalists, best first."""
    replayed: tuple[Step, ...] = ()
    """The last steps of the pipelines of a replay, in their order; empty for a search."""
