"""Features of an action for a regression: what it does, on what, and how good its input models are."""

import math
from collections.abc import Mapping

from lamdagent.actions.action import Action, Scalar
from lamdagent.memory.trial import ActionTrial, History
from lamdagent.objects.model import Model

Features = dict[str, float]
PAST = 0.5
"""How much a lineage counts beside the action itself; of 0, 0.25, 0.5, 0.7 and 1 the best on one recorded seed."""


class Featurizer:
    """Features over one history; lineages are walked once per model."""

    def __init__(self, history: History, lineages: dict[str, Features] | None = None) -> None:
        """Bind to `history`; make a new one each turn.

        `lineages`: what earlier turns have walked, by the action that made the model; it is added to.
        """
        self._history = history
        self._lineages = {} if lineages is None else lineages
        base = history.base_score()
        self._unknown = base.value if base else 0.0

    def of_trial(self, trial: ActionTrial) -> Features:
        """Features of the action of `trial`, and whose it was: others' figures lie a little apart from ours."""
        return self(trial.action) | ({f"source={trial.source}": 1.0} if trial.source else {})

    def parent_score(self, action: Action) -> float:
        """The best score among the input models; the base's where a model has none."""
        return max(self.score(model) for model in action.models)

    def __call__(self, action: Action) -> Features:
        """One flat mapping; categories are 0/1, sizes are near 1."""
        scores = [self.score(model) for model in action.models]
        features = {f"type={action.type}": 1.0, "depth": float(max(m.depth for m in action.models))}
        features |= {"parents": len(scores) / 2, "spread": max(scores) - min(scores), "parent": max(scores)}
        features |= _data("data", action)
        for key, value in action.hyperparameters.items():
            features |= _scaled(f"{action.type}.{key}", value)
        for model in action.models:
            for key, value in self._lineage(model).items():
                features[key] = features.get(key, 0.0) + PAST * value / len(action.models)
            if source := self._source(model):
                features[f"parent.source={source}"] = 1.0
            for task, level in self._task_scores(model).items():
                features[f"parent.{task}"] = features.get(f"parent.{task}", 0.0) + level / len(action.models)
        return features

    def score(self, model: Model) -> float:
        """The weighted score; the base's where the model has none."""
        trial = self._history.by_model.get(model.fingerprint)
        return trial.score.value if trial and trial.score else self._unknown

    def _source(self, model: Model) -> str:
        trial = self._history.by_model.get(model.fingerprint)
        return trial.source if trial else ""

    def _task_scores(self, model: Model) -> Mapping[str, float]:
        trial = self._history.by_model.get(model.fingerprint)
        return {name: score.value for name, score in trial.scores.items()} if trial else {}

    def _lineage(self, model: Model) -> Features:
        """Shares of the datasets and action types in the model's past."""
        trial = self._history.by_model.get(model.fingerprint)
        if trial is None or trial.action is None:
            return {}
        made_by = trial.action.fingerprint
        if made_by not in self._lineages:
            self._lineages[made_by] = self._past(trial.action)
        return self._lineages[made_by]

    def _past(self, action: Action) -> Features:
        past = {f"past.type={action.type}": 1.0} | _data("past.data", action)
        for parent in action.models:
            for key, value in self._lineage(parent).items():
                past[key] = past.get(key, 0.0) + value / len(action.models)
        return past


def _data(key: str, action: Action) -> Features:
    """Which data; of what an action made, also that it is such, since nothing else is known of a new one."""
    made = {f"{key} made": 1.0 for ref in action.data if ref.run_id}
    return {f"{key}={ref.name}": 1.0 for ref in action.data} | made


def _scaled(key: str, value: Scalar) -> Features:
    if isinstance(value, bool | str):
        return {f"{key}={value}": 1.0}
    return {key: math.log10(value) if value > 0 else float(value)}
