"""A policy on a recorded landscape: the same turns as in a real search, the scores from the table."""

import dataclasses
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from lamdagent.actions.action import Action, ActionType, Scalar
from lamdagent.enumeration.fingerprint import Objects
from lamdagent.enumeration.space import ActionSpace
from lamdagent.errors import IllegalAction
from lamdagent.landscape.table import Landscape
from lamdagent.memory.text import memory_text
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.model import Model
from lamdagent.selection.policy import Policy, Turn


class RecordedSpace(ActionSpace):
    """The recorded actions whose inputs are there and which have not been tried."""

    def __init__(self, landscape: Landscape, models: Mapping[str, Any], tried: Collection[str]) -> None:
        """`models`: fingerprint -> model, the pool; `tried`: fingerprints of actions."""
        super().__init__(landscape.types, list(models.values()), landscape.datasets, tried=tried, seed=landscape.seed)
        self._landscape = landscape
        self._offered: dict[str, list[Action]] = {
            name: [t.action for t in trials if t.run_id not in tried and all(parent in models for parent in t.parents)]
            for name, trials in landscape.by_type.items()
        }

    def among(self, models: Sequence[Model]) -> "RecordedSpace":
        """See `ActionSpace`."""
        return RecordedSpace(self._landscape, {m.fingerprint: m for m in models}, self.tried)

    def available(self) -> list[ActionType]:
        """See `ActionSpace`."""
        return [t for t in self.types if self._offered[t.name]]

    def size(self, action_type: ActionType) -> int:
        """How many recorded actions of the type are legal and untried."""
        return len(self._offered[action_type.name])

    def options(self, action_type: ActionType) -> dict[str, list[Any]]:
        """See `ActionSpace`."""
        found: dict[str, dict[str, Any]] = {slot.name: {} for slot in action_type.slots}
        for action in self._offered[action_type.name]:
            for slot, objects in action.objects.items():
                found[slot] |= {thing.name: thing for thing in objects}
        return {slot: list(things.values()) for slot, things in found.items()}

    def actions(self, action_type: ActionType) -> Iterator[Action]:
        """See `ActionSpace`."""
        return iter(self._offered[action_type.name])

    def sample(self, action_type: ActionType, rng: random.Random) -> Action | None:
        """See `ActionSpace`."""
        offered = self._offered[action_type.name]
        return rng.choice(offered) if offered else None

    def make(self, type_name: str, objects: Objects, hyperparameters: Mapping[str, Scalar]) -> Action:
        """The recorded action of these objects.

        Raises:
            IllegalAction: it was not recorded, or has been tried.
        """
        names = {slot: sorted(o.name for o in chosen) for slot, chosen in objects.items()}
        for action in self._offered.get(type_name, ()):
            same = all(sorted(action.slots[slot]) == names.get(slot) for slot in action.slots)
            if same and all(action.hyperparameters.get(key) == value for key, value in hyperparameters.items()):
                return action
        raise IllegalAction(
            f"{type_name} with these objects has been tried or cannot be had; choose another combination"
        )


@dataclasses.dataclass(frozen=True)
class SimulatedRun:
    """A policy's search on a landscape, trial by trial."""

    scores: tuple[float, ...]
    """Score of each trial in turn; NaN where it failed."""
    seconds: tuple[float, ...]
    """Seconds that each trial took when it was recorded."""
    thinking: tuple[float, ...]
    """Seconds that the policy took for each choice, here and now."""
    choices: tuple[str, ...]
    """Fingerprints, in turn."""
    fallbacks: int
    """Turns in which an LLM was not usable."""

    def best(self, start: float) -> list[float]:
        """Best score so far after each trial, from the base's on."""
        found, best = [], start
        for score in self.scores:
            best = max(best, score) if score == score else best
            found.append(best)
        return found


def replay(policy: Policy, landscape: Landscape, trials: int, seed: int, *, remember: bool = False) -> SimulatedRun:
    """`trials` turns of `policy`; with `remember` it is given the memory text, as an LLM needs it."""
    done: list[Trial] = [landscape.base]
    models = {landscape.base.run_id: landscape.base.model}
    by_run = {t.run_id: t for t in landscape.trials}
    fallbacks, thinking = 0, list[float]()
    for number in range(trials):
        history = History(tuple(done))
        space = RecordedSpace(landscape, models, {t.run_id for t in done})
        text = memory_text(history, space, landscape.tasks, 2000) if remember else ""
        asked = time.perf_counter()
        decision = policy(Turn(history, space, number, seed, partial(str, text)))  # made before the clock starts
        if decision is None:
            break
        thinking.append(time.perf_counter() - asked)
        fallbacks += "fallback" in decision.details
        trial = dataclasses.replace(by_run[decision.action.fingerprint], started=number + 1, policy=decision.policy)
        done.append(trial)
        if trial.model:
            models[trial.run_id] = trial.model
    ended = done[1:]
    scores = tuple(t.score.value if t.score else float("nan") for t in ended)
    seconds, choices = tuple(t.seconds for t in ended), tuple(t.run_id for t in ended)
    return SimulatedRun(scores, seconds, tuple(thinking), choices, fallbacks)
