"""A model's past as a DAG: as one line for people and prompts, and as a recipe that makes it again."""

from typing import Any

from lamdagent.actions.action import Action
from lamdagent.evaluation.task import Score
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.model import Model
from lamdagent.objects.reference import DATASET

DEEPEST = 12
"""Most steps of a chain."""
LONGEST = 300
"""Characters of a chain; deeper pasts are cut at their old end."""


def lineage_string(model: Model, history: History) -> str:
    """The pipeline as one line: `base > sft_lora(calls, learning_rate=0.001) > dpo(pairs)`; merged models by name."""
    text = _lineage_string(model, history, DEEPEST)
    if len(text) <= LONGEST:
        return text
    return "... > " + text[-LONGEST:].partition(" > ")[2]


def _lineage_string(model: Model, history: History, left: int) -> str:
    trial = history.by_model.get(model.fingerprint)
    if trial is None or trial.action is None:
        return model.name if not model.initial else "base"
    if trial.source and left < DEEPEST:  # said by others: the model's name and theirs will do inside a chain
        return f"{model.name} (from {trial.source})"
    if left == 0:
        return model.name
    step = summary(trial.action)
    parents = trial.action.models
    if len(parents) == 1:
        return f"{_lineage_string(parents[0], history, left - 1)} > {step}"
    return f"[{' + '.join('base' if p.initial else p.name for p in parents)}] > {step}"


def given_by(model: Model, history: History) -> set[str]:
    """The sources of others whose models it descends from (or is), by name."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [model]
    while waiting:
        trial = history.by_model.get(waiting.pop().fingerprint)
        if trial is None or trial.run_id in seen:
            continue
        seen.add(trial.run_id)
        found |= {trial.source} - {""}
        waiting += trial.action.models if trial.action else ()
    return found


def summary(action: Action) -> str:
    """The step alone: type, datasets, and the hyperparameters that the search chose."""
    inside = ", ".join([*(ref.name for ref in action.data), *action.settings()])
    return f"{action.type}({inside})" if inside else action.type


def recipe(trial: Trial, history: History) -> dict[str, Any]:
    """How to make the trial's model: every step from the initial models on, inputs before their uses."""
    steps: list[dict[str, Any]] = []
    for model, made in ancestors(trial, history).items():
        if made is None or made.action is None:
            steps.append({"model": model.name, "source": model.location, "fingerprint": model.fingerprint})
        else:
            steps.append({"model": model.name, "run_id": made.run_id, **step(made.action), **_also(made)})
    if trial.action is not None:
        steps.append({"model": "this", "run_id": trial.run_id, **step(trial.action)})
    return {"schema": 1, "steps": steps}


def ancestors(trial: Trial, history: History) -> dict[Model, Trial | None]:
    """Every model that the trial's action rests on, inputs before their uses, with the trial that made or scored it."""
    found: dict[Model, Trial | None] = {}

    def visit(model: Model) -> None:
        made = history.by_model.get(model.fingerprint)
        if made is not None and made.source:  # given, like what the user declared: others made it
            made = None
        model = made.model if made and made.model else model
        if model in found:
            return
        for parent in dependencies(made.action, history) if made and made.action else ():
            visit(parent)
        found[model] = made

    for parent in dependencies(trial.action, history) if trial.action else ():
        visit(parent)
    return found


def dependencies(action: Action, history: History) -> list[Model]:
    """The action's input models, and those of the actions that made its data besides."""
    makers = (history.by_run.get(ref.run_id) for ref in action.data if ref.run_id)
    return [*action.models, *(maker.model for maker in makers if maker and maker.model)]


def step(action: Action) -> dict[str, Any]:
    """One step of a recipe: everything that decides which model comes out."""
    resources = {ref.name: ref.fingerprint for ref in action.data if ref.kind != DATASET}
    return {
        "action": action.type,
        "inputs": {slot: list(names) for slot, names in action.slots.items()},
        "hyperparameters": dict(action.hyperparameters),
        "datasets": {ref.name: ref.fingerprint for ref in action.data if ref.kind == DATASET},
        **({"resources": resources} if resources else {}),
        "seed": action.seed,
        "data_fraction": action.data_fraction,
        "fingerprint": action.fingerprint,
    }


def _also(made: Trial) -> dict[str, Any]:
    """The data that a step made besides its model."""
    return {"makes": {made.dataset.name: made.dataset.fingerprint}} if made.dataset else {}


def format_score(score: Score | None) -> str:
    """`0.412 +- 0.031`, or a dash."""
    return f"{score.value:.3f} +- {score.stderr:.3f}" if score else "-"
