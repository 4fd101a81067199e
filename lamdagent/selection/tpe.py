"""The tree-structured Parzen estimator (Bergstra et al. 2011, https://papers.nips.cc/paper/4443), by Optuna.

Optuna wants a space that stays the same, but the pool of models grows. So an input model is described by its score, a
parameter in [0, 1] that every model, present or future, has a value of. The action nearest to the proposal is taken.
"""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from lamdagent.actions.action import Action, ActionType
from lamdagent.enumeration.space import ActionSpace
from lamdagent.objects.model import Model
from lamdagent.selection.candidates import candidates, training_trials
from lamdagent.selection.features import Featurizer
from lamdagent.selection.policy import Decision, Turn

PROPOSALS = 20
"""How often Optuna is asked again while the proposed type has nothing left."""
TOLD = 100
"""Most trials that a study is told, a third of a millisecond each."""
Params = dict[str, Any]


class TPEPolicy:
    """A study is made anew each turn from the history, so restarts, colleagues' runs and failures are all seen."""

    def __call__(self, turn: Turn) -> Decision | None:
        """The untried action nearest to the proposal; the first ten proposals are Optuna's random draws."""
        types = {t.name: t for t in turn.space.available()}
        if not types:
            return None
        forms = {t.name: _form(t, turn.space) for t in turn.space.types}
        scores = Featurizer(turn.history)
        study = _study(turn, forms, scores)
        for _ in range(PROPOSALS):
            wanted = _proposal(study, forms)
            if wanted["type"] in types:
                break
        else:
            wanted = {"type": next(iter(types))}
        offered = candidates(turn, [types[wanted["type"]]])
        action = min(offered, key=lambda a: _distance(_params(a, scores), wanted))
        text = ", ".join(
            f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in wanted.items()
        )
        return Decision(action, "tpe", f"the action nearest to the proposal {text}", details={"proposal": wanted})


def _form(action_type: ActionType, space: ActionSpace) -> dict[str, Any]:
    """Parameter -> Optuna distribution: what there is to choose for an action of this type."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    form: dict[str, Any] = {}
    for slot in action_type.slots:
        name = f"{action_type.name}.{slot.name}"
        if not slot.holds_models:
            form[name] = CategoricalDistribution([o.name for o in space.inputs if o.kind == slot.kind] or [""])
            continue
        if slot.maximum > slot.minimum:
            form[f"{name}.count"] = IntDistribution(slot.minimum, slot.maximum)
        form |= {f"{name}.{place}": FloatDistribution(0.0, 1.0) for place in range(slot.maximum)}
    return form | {
        f"{action_type.name}.{key}": CategoricalDistribution(action_type.grid[key]) for key in action_type.choices
    }


def _params(action: Action, scores: Featurizer) -> Params:
    """An action in the parameters of `_form`: input models by their scores, the best first."""
    params: Params = {"type": action.type}
    for slot, refs in action.inputs.items():
        models = [o for o in action.objects[slot] if isinstance(o, Model)]
        levels = sorted(map(scores.score, models), reverse=True)
        if not levels:
            params[f"{action.type}.{slot}"] = refs[0].name
            continue
        params |= {f"{action.type}.{slot}.{place}": level for place, level in enumerate(levels)}
        params[f"{action.type}.{slot}.count"] = len(levels)
    return params | {f"{action.type}.{key}": action.hyperparameters[key] for key in action.choices}


def _study(turn: Turn, forms: Mapping[str, dict[str, Any]], scores: Featurizer) -> Any:
    import optuna

    logging.getLogger("optuna").setLevel(logging.ERROR)
    seed = (turn.seed * 1_000_003 + turn.number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `group`, there since 2020
        sampler = optuna.samplers.TPESampler(seed=seed, group=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    states = optuna.trial.TrialState
    for trial in training_trials(turn.history, TOLD):
        # A failure counts as pruned: ranked below every score, and so avoided.
        state, value = (states.COMPLETE, trial.score.value) if trial.score else (states.PRUNED, None)
        _tell(study, trial.action, forms, scores, state=state, value=value)
    for action in turn.pending:
        _tell(study, action, forms, scores, state=states.RUNNING)
    return study


def _tell(study: Any, action: Action, forms: Mapping[str, dict[str, Any]], scores: Featurizer, **ended: Any) -> None:
    """Add a trial, unless its type or one of its values is no choice of this search."""
    from optuna.trial import create_trial

    form = {"type": _types(forms), **forms.get(action.type, {})}
    params = {key: value for key, value in _params(action, scores).items() if key in form}
    fits = all(value in form[key].choices for key, value in params.items() if hasattr(form[key], "choices"))
    if action.type in forms and fits:
        study.add_trial(create_trial(params=params, distributions={key: form[key] for key in params}, **ended))


def _types(forms: Mapping[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution(list(forms))


def _proposal(study: Any, forms: Mapping[str, dict[str, Any]]) -> Params:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    asked = study.ask()
    wanted: Params = {"type": asked.suggest_categorical("type", list(forms))}
    for key, distribution in forms[wanted["type"]].items():
        slot, _, place = key.rpartition(".")
        if place.isdigit() and int(place) >= wanted.get(f"{slot}.count", int(place) + 1):
            continue
        if isinstance(distribution, CategoricalDistribution):
            wanted[key] = asked.suggest_categorical(key, distribution.choices)
        elif isinstance(distribution, IntDistribution):
            wanted[key] = asked.suggest_int(key, distribution.low, distribution.high)
        else:
            wanted[key] = asked.suggest_float(key, distribution.low, distribution.high)
    study.tell(asked, state=_failed())  # the proposal is only a direction: the real action is told when it has a score
    return wanted


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _distance(params: Params, wanted: Params) -> float:
    """Unequal categories and counts cost 1 each, scores by how far they are apart."""
    total = 0.0
    for key, value in wanted.items():
        have = params.get(key)
        level = key.rpartition(".")[2].isdigit() and have is not None
        total += abs(value - have) if level else float(value != have)
    return total
