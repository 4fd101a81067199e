"""The actions that a statistical policy ranks: all of a small space, a seeded sample of a large one."""

import heapq
import random
from collections.abc import Sequence

from lamdagent.actions.action import Action, ActionType
from lamdagent.memory.history import RETRYABLE
from lamdagent.selection.policy import Turn
from lamdagent.trial import History, Trial

MOST = 500
"""Most candidates per action type."""
TELLING = 400
"""Most trials that a regression is fitted to; its cost grows with their cube."""


def candidates(turn: Turn, types: Sequence[ActionType]) -> list[Action]:
    """Untried actions of `types` in declared order, at most `MOST` each; the same ones for the same turn."""
    rng = random.Random(f"candidates:{turn.seed}:{turn.number}")
    found: dict[str, Action] = {}
    for action_type in types:
        if turn.space.size(action_type) <= MOST:
            found |= {action.fingerprint: action for action in turn.space.actions(action_type)}
            continue
        for _ in range(MOST):
            action = turn.space.sample(action_type, rng)
            if action is None:
                break
            found[action.fingerprint] = action
    return list(found.values())


def telling(history: History) -> list[Trial]:
    """Ended actions to learn from, others' first: all, or the best and the latest half; ours have precedence.

    A failure of the surroundings, such as a lost worker, teaches nothing of the action; a lack of memory does.
    """
    own = _most_telling([t for t in history.actions if t.action], TELLING)
    others = _most_telling([t for t in history.foreign if t.action], TELLING - len(own))
    return [*others, *own]


def _most_telling(trials: Sequence[Trial], most: int) -> list[Trial]:
    ended = [t for t in trials if t.action and t.action.models and t.status != "running" and t.failure not in RETRYABLE]
    if len(ended) <= most:
        return ended
    scored = (t for t in ended if t.score)
    best = heapq.nsmallest(most // 2, scored, key=lambda t: (-t.score.value, t.started))  # type: ignore[union-attr]
    kept = {*(t.run_id for t in best), *(t.run_id for t in ended[len(ended) - most // 2 :])}
    return [t for t in ended if t.run_id in kept]
