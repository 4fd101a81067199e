"""Bayesian optimisation over pipelines: a Gaussian process predicts what an action adds to its best input model.

The target is the gain over the parent, not the score: an untried step on a good model is then expected to be good.
The pick is the highest expected improvement over the best score so far, times the chance that the action does not fail.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lamdagent.actions.action import Action, ActionType
from lamdagent.memory.trial import ActionTrial, is_scored_action
from lamdagent.selection.candidates import candidates, training_trials
from lamdagent.selection.features import Features, Featurizer
from lamdagent.selection.policy import Decision, Turn

LENGTH_SCALE = 2.0
"""In feature units: about the distance between two actions that differ in type and dataset."""
LEAST_SPREAD = 0.05
"""Prior standard deviation of gains when the few seen ones are nearly equal."""
PRIOR_FAILURE, PRIOR_WEIGHT = 0.05, 4
"""Every group of actions starts as if so many trials had been seen, so many of them failed."""


@dataclass(frozen=True)
class Prediction:
    """The surrogate's prediction for one action."""

    action: Action
    mean: float
    """Expected score."""
    std: float
    failure: float
    """Chance of no score."""
    acquisition: float
    """Expected improvement over the best so far, times the chance of success."""

    def describe(self) -> str:
        """One line for people and prompts."""
        risk = f", risk of failure {self.failure:.0%}" if self.failure > 0.2 else ""
        return f"{self.action.describe()}: expected {self.mean:.3f} +- {self.std:.3f}{risk}"


class SurrogatePolicy:
    """Every second pick tries a new action type while there is one; the others follow the prediction."""

    def __init__(self) -> None:
        """Nothing is kept between turns but lineages, which never change."""
        self._lineages: dict[str, Features] = {}

    def __call__(self, turn: Turn) -> Decision | None:
        """The most promising action; the first declared one as long as nothing is known."""
        ranking, why = self.ranking(turn)
        if not ranking:
            return None
        best = ranking[0]
        known = len([t for t in turn.history.experience if t.score])
        risk = f", risk of failure {best.failure:.0%}" if best.failure > 0.2 else ""
        text = f"{why}expected score {best.mean:.3f} +- {best.std:.3f} from {known} scored actions{risk}"
        return Decision(best.action, "surrogate", text, offered=tuple(p.describe() for p in ranking[:10]))

    def ranking(self, turn: Turn) -> tuple[list[Prediction], str]:
        """Predictions to choose from, best first, and what sets this turn apart; empty when nothing is left."""
        types = turn.space.available()
        used = {t.action.type for t in turn.history.experience} | {a.type for a in turn.pending}
        fresh = [t for t in types if t.name not in used]
        if fresh and turn.number % 2 == 0:
            return rank(turn, fresh[:1], self._lineages), f"first try of {fresh[0].name}; "
        return rank(turn, types, self._lineages), ""


def rank(turn: Turn, types: Sequence[ActionType], lineages: dict[str, Features] | None = None) -> list[Prediction]:
    """Candidates of `types`, the most promising first; equals keep the declared order."""
    return sorted(predict(turn, candidates(turn, types), lineages), key=lambda p: -p.acquisition)


def predict(turn: Turn, actions: Sequence[Action], lineages: dict[str, Features] | None = None) -> list[Prediction]:
    """A prediction for each of `actions`, with the pending ones taken for done as expected.

    `lineages`: see `Featurizer`; without them every turn walks all.
    """
    if not actions:
        return []
    ended = training_trials(turn.history)
    means, stds = _scores(turn, ended, actions, Featurizer(turn.history, lineages))
    risk = _Risk(ended)
    scored = turn.history.scored
    best = scored[0].score.value if scored else 0.0
    predictions = []
    for action, mean, std in zip(actions, means, stds, strict=True):
        failure = risk(action)
        acquisition = (1 - failure) * _expected_improvement(mean, std, best)
        predictions.append(Prediction(action, mean, std, failure, acquisition))
    return predictions


def _scores(
    turn: Turn, ended: Sequence[ActionTrial], actions: Sequence[Action], featurize: Featurizer
) -> tuple[list[float], list[float]]:
    """Means and standard deviations of the actions' scores."""
    parents = [featurize.parent_score(action) for action in actions]
    seen = list(filter(is_scored_action, ended))
    if not seen:
        return parents, [1.0] * len(actions)
    known = [featurize.of_trial(trial) for trial in seen]
    gains = [trial.score.value - featurize.parent_score(trial.action) for trial in seen]
    noise = [max(trial.score.stderr, 0.01) ** 2 for trial in seen]
    asked = [featurize(action) for action in actions]
    if turn.pending:  # the "kriging believer" (Ginsbourger et al. 2010): a batch spreads instead of repeating itself
        waiting = [featurize(action) for action in turn.pending]
        believed, _ = _regress(known, gains, noise, waiting)
        known, gains, noise = known + waiting, gains + believed, noise + [0.01**2] * len(waiting)
    means, stds = _regress(known, gains, noise, asked)
    return [p + m for p, m in zip(parents, means, strict=True)], stds


def _regress(
    known: Sequence[Features], gains: Sequence[float], noise: Sequence[float], asked: Sequence[Features]
) -> tuple[list[float], list[float]]:
    import numpy as np
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    table = DictVectorizer(sparse=False, sort=False).fit_transform([*known, *asked])
    centre = float(np.mean(gains))
    spread = max(float(np.std(gains)), LEAST_SPREAD)
    kernel: Any = ConstantKernel(spread**2, "fixed") * Matern(LENGTH_SCALE, "fixed", nu=2.5)
    process = GaussianProcessRegressor(kernel, alpha=np.array(noise), optimizer=None)
    with _libraries().limit(limits=1):  # for so few points threads that wait for busy cores cost ten times their help
        process.fit(table[: len(known)], np.array(gains) - centre)
        means, stds = process.predict(table[len(known) :], return_std=True)
    return [float(m) + centre for m in means], [float(s) for s in stds]


@lru_cache
def _libraries() -> Any:
    """Handles of the loaded BLAS libraries; finding them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


class _Risk:
    """Chance that an action fails: the worst record among the groups that it belongs to, each drawn towards 5 %."""

    def __init__(self, ended: Sequence[ActionTrial]) -> None:
        self._tried: dict[Hashable, int] = defaultdict(int)
        self._failed: dict[Hashable, int] = defaultdict(int)
        for trial in ended:
            for group in _groups(trial.action):
                self._tried[group] += 1
                self._failed[group] += trial.status == "failed"

    def __call__(self, action: Action) -> float:
        return max(
            (PRIOR_FAILURE * PRIOR_WEIGHT + self._failed.get(group, 0)) / (PRIOR_WEIGHT + self._tried.get(group, 0))
            for group in _groups(action)
        )


def _groups(action: Action) -> Iterator[Hashable]:
    """Groups of actions that may be to blame for a failure: the type, or one of its values or datasets with it."""
    yield action.type
    yield from ((action.type, key, action.hyperparameters[key]) for key in action.choices)
    yield from ((action.type, ref.fingerprint or ref.name) for ref in action.data)


def _expected_improvement(mean: float, std: float, best: float) -> float:
    """E[max(0, score - best)] of a normal prediction (Jones et al. 1998, https://doi.org/10.1023/A:1008306431147)."""
    if std <= 0:
        return max(0.0, mean - best)
    z = (mean - best) / std
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return (mean - best) * 0.5 * math.erfc(-z / math.sqrt(2)) + std * density
