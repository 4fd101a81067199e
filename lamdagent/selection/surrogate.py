"""Bayesian optimisation over pipelines: a Gaussian process predicts what an action adds to its best input model.

The target is the gain over the parent, not the score: an untried step on a good model is then expected to be good.
The pick is the highest expected improvement over the best score so far, times the chance that the action does not fail.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lamdagent.actions.action import Action, ActionType
from lamdagent.selection.features import Featurizer
from lamdagent.selection.policy import Decision, Turn
from lamdagent.trial import History

CANDIDATES = 500
"""Most actions ranked per type; a larger space is sampled."""
LENGTH_SCALE = 2.0
"""In feature units: about the distance between two actions that differ in type and dataset."""
LEAST_SPREAD = 0.05
"""Prior standard deviation of gains when the few seen ones are nearly equal."""


@dataclass(frozen=True)
class Prediction:
    """What the surrogate expects of one action."""

    action: Action
    mean: float
    """Expected score."""
    std: float
    failure: float
    """Chance of no score."""
    merit: float
    """Expected improvement over the best so far, times the chance of success."""

    def describe(self) -> str:
        """One line for people."""
        return f"{self.action.describe()}: expected {self.mean:.3f} +- {self.std:.3f}"


class SurrogatePolicy:
    """Every second pick tries a new action type while there is one; the others follow the prediction."""

    def __call__(self, turn: Turn) -> Decision | None:
        """The most promising action; the first declared one as long as nothing is known."""
        types = turn.space.available()
        if not types:
            return None
        used = {t.action.type for t in turn.history.actions if t.action} | {a.type for a in turn.pending}
        fresh = [t for t in types if t.name not in used]
        exploring = bool(fresh) and turn.number % 2 == 0
        ranking = rank(turn, fresh[:1] if exploring else types)
        if not ranking:
            return None
        best = ranking[0]
        why = f"first try of {best.action.type}; " if exploring else ""
        risk = f", risk of failure {best.failure:.0%}" if best.failure > 0.2 else ""
        known = len([t for t in turn.history.actions if t.score])
        text = f"{why}expected score {best.mean:.3f} +- {best.std:.3f} from {known} scored actions{risk}"
        return Decision(best.action, "surrogate", text, offered=tuple(p.describe() for p in ranking[:10]))


def rank(turn: Turn, types: Sequence[ActionType]) -> list[Prediction]:
    """Candidates of `types`, the most promising first; equals keep the declared order."""
    candidates = _candidates(turn, types)
    if not candidates:
        return []
    means, stds = _predict(turn.history, candidates)
    scored = turn.history.scored
    best = scored[0].score.value if scored and scored[0].score else 0.0
    predictions = []
    for action, mean, std in zip(candidates, means, stds, strict=True):
        failure = _failure_rate(turn.history, action)
        merit = (1 - failure) * _expected_improvement(mean, std, best)
        predictions.append(Prediction(action, mean, std, failure, merit))
    return sorted(predictions, key=lambda p: -p.merit)


def _candidates(turn: Turn, types: Sequence[ActionType]) -> list[Action]:
    rng = random.Random(f"surrogate:{turn.seed}:{turn.number}")
    found: dict[str, Action] = {}
    for action_type in types:
        if turn.space.size(action_type) <= CANDIDATES:
            found |= {action.fingerprint: action for action in turn.space.actions(action_type)}
            continue
        for _ in range(CANDIDATES):
            action = turn.space.sample(action_type, rng)
            if action is None:
                break
            found[action.fingerprint] = action
    return list(found.values())


def _predict(history: History, candidates: Sequence[Action]) -> tuple[list[float], list[float]]:
    """Means and standard deviations of the candidates' scores."""
    featurize = Featurizer(history)
    parents = [featurize.parent_score(action) for action in candidates]
    seen = [trial for trial in history.actions if trial.score and trial.action and trial.action.models]
    if not seen:
        return parents, [1.0] * len(candidates)
    gains = [t.score.value - featurize.parent_score(t.action) for t in seen if t.score and t.action]
    noise = [max(t.score.stderr, 0.01) ** 2 for t in seen if t.score]
    means, stds = _regress(
        [featurize(t.action) for t in seen if t.action], gains, noise, [featurize(a) for a in candidates]
    )
    return [p + m for p, m in zip(parents, means, strict=True)], stds


def _regress(
    known: Sequence[dict[str, float]], gains: Sequence[float], noise: Sequence[float], asked: Sequence[dict[str, float]]
) -> tuple[list[float], list[float]]:
    import numpy as np
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    vectorizer = DictVectorizer(sparse=False).fit([*known, *asked])
    centre = float(np.mean(gains))
    spread = max(float(np.std(gains)), LEAST_SPREAD)
    kernel: Any = ConstantKernel(spread**2, "fixed") * Matern(LENGTH_SCALE, "fixed", nu=2.5)
    process = GaussianProcessRegressor(kernel, alpha=np.array(noise), optimizer=None)
    process.fit(vectorizer.transform(list(known)), np.array(gains) - centre)
    means, stds = process.predict(vectorizer.transform(list(asked)), return_std=True)
    return [float(m) + centre for m in means], [float(s) for s in stds]


def _failure_rate(history: History, action: Action) -> float:
    """Share of failed trials of this type, drawn towards 5 % while few are known."""
    same = [t for t in history.actions if t.action and t.action.type == action.type and t.status != "running"]
    return (0.2 + sum(t.status == "failed" for t in same)) / (4 + len(same))


def _expected_improvement(mean: float, std: float, best: float) -> float:
    """E[max(0, score - best)] of a normal prediction (Jones et al. 1998, https://doi.org/10.1023/A:1008306431147)."""
    if std <= 0:
        return max(0.0, mean - best)
    z = (mean - best) / std
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return (mean - best) * 0.5 * math.erfc(-z / math.sqrt(2)) + std * density
