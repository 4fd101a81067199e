"""The actions that a statistical policy ranks: all of a small space, a seeded sample of a large one."""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

from lamdagent.actions.action import Action, ActionType
from lamdagent.enumeration.space import ActionSpace
from lamdagent.memory.trial import RETRYABLE, ActionTrial, History, has_action
from lamdagent.objects.model import Model
from lamdagent.selection.policy import Turn

MOST = 500
"""Up to so many actions of a type, all are candidates."""
DRAWN = 100
"""So many candidates of a larger type."""
NEAR = 10
"""Half of those take only the best so many models and the initial ones; a pool of thousands would hide them."""
TELLING = 200
"""Most trials that a regression is fitted to; its cost grows with their cube."""


def candidates(turn: Turn, types: Sequence[ActionType]) -> list[Action]:
    """Untried actions of `types` in declared order; the same ones for the same turn."""
    rng = random.Random(f"candidates:{turn.seed}:{turn.number}")
    found: dict[str, Action] = {}
    near: ActionSpace | None = None
    for action_type in types:
        if turn.space.size(action_type) <= MOST:
            found |= {action.fingerprint: action for action in turn.space.actions(action_type)}
            continue
        near = near or turn.space.among(_best(turn))
        for space in (near, turn.space):
            found |= {action.fingerprint: action for action in _drawn(space, action_type, DRAWN // 2, rng)}
    return list(found.values())


def _drawn(space: ActionSpace, action_type: ActionType, most: int, rng: random.Random) -> Iterator[Action]:
    for _ in range(most):
        action = space.sample(action_type, rng)
        if action is None:
            return
        yield action


def _best(turn: Turn) -> list[Model]:
    """The best models that are inputs, and the initial ones."""
    inputs = {model.fingerprint: model for model in turn.space.models}
    scored = (inputs.get(trial.model.fingerprint) for trial in turn.history.scored)
    best = {model.fingerprint: model for model, _ in zip(filter(None, scored), range(NEAR), strict=False)}
    return list({**best, **{model.fingerprint: model for model in turn.space.models if model.initial}}.values())


def training_trials(history: History, most: int = TELLING) -> list[ActionTrial]:
    """Ended actions to learn from, others' first: all, or the best and the latest of `most`; ours have precedence.

    A failure of the surroundings, such as a lost worker, teaches nothing of the action; a lack of memory does.
    """
    own = _working_set(history.actions, history.pipelines, most)
    foreign = history.experience[: len(history.experience) - len(history.actions)]
    best = [trial for trial in history.external_scored if has_action(trial)]
    others = _working_set(foreign, best, most - len(own))
    return [*others, *own]


def _working_set(trials: Sequence[ActionTrial], scored: Sequence[ActionTrial], most: int) -> list[ActionTrial]:
    """Oldest first; `trials` are, too, and may be many thousands. `scored`: the best first."""
    latest = list(itertools.islice(_teaching(reversed(trials)), most + 1))
    if len(latest) <= most:
        return latest[::-1]
    best = itertools.islice(_teaching(scored), most // 2)
    kept = {t.run_id: t for t in (*best, *latest[: most // 2])}
    return sorted(kept.values(), key=lambda t: (t.started, t.run_id))


def _teaching(trials: Iterable[ActionTrial]) -> Iterator[ActionTrial]:
    return (t for t in trials if t.action.models and t.status != "running" and t.failure not in RETRYABLE)
