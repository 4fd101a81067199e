"""The actions that a statistical policy ranks: all of a small space, a seeded sample of a large one."""

import random
from collections.abc import Sequence

from lamdagent.actions.action import Action, ActionType
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
    """Ended actions to learn from, oldest first: all of them, or of a long history the best and the latest half."""
    ended = [t for t in history.actions if t.action and t.action.models and t.status != "running"]
    if len(ended) <= TELLING:
        return ended
    best = [t.run_id for t in history.scored if t.kind == "action"][: TELLING // 2]
    kept = {*best, *(t.run_id for t in ended[-TELLING // 2 :])}
    return [t for t in ended if t.run_id in kept]
