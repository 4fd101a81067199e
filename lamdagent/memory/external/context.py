"""Context against which an external run is parsed, and the result of parsing it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamdagent.actions.action import ActionType
from lamdagent.config import ModelConfig
from lamdagent.errors import LamdagentError
from lamdagent.evaluation.task import Score, Task
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.tracking.runs import RunRecord


@dataclass(frozen=True)
class SearchContext:
    """The action types, datasets, tasks and models that a foreign run may be about."""

    types: tuple[ActionType, ...]
    datasets: tuple[Dataset, ...]
    tasks: tuple[Task, ...]
    models: Mapping[str, Model]
    """By every name that it goes by; the first one is what a run that names no input model is taken to start from."""
    base_scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    """Task -> score of our base, which stands in where they have not measured a task; empty when not known yet."""


@dataclass(frozen=True)
class ParsedRun:
    """The result of parsing one run: a trial with notes, or the reason why there is none."""

    run_id: str
    name: str
    trial: Trial | None = None
    notes: tuple[str, ...] = ()
    """Notes on what was assumed, and what could not be used."""
    skipped: str = ""
    """Why there is no trial."""


class Unparsed(LamdagentError):
    """The run cannot be a trial; the message says why."""


def known_names(given: Mapping[str, ModelConfig], models: Sequence[Model]) -> dict[str, Model]:
    """The initial models by all names that others may know them by; `models` are those of `given`, in its order."""
    pairs = list(zip(given.items(), models, strict=False))
    names = {name: model for (name, _), model in pairs}
    for (_, settings), model in pairs:
        source = settings.source.rstrip("/")
        for key in (source, source.rpartition("/")[2], model.name, model.fingerprint, *filter(None, (model.run_id,))):
            names.setdefault(key, model)
    return names


def with_external(own: History, foreign: Sequence[Trial]) -> History:
    """`own` with the trials of others, and our actions on their models bound to these models."""
    models = {t.run_id: t.model for t in foreign if t.model}

    def bound(trial: Trial) -> Trial:
        if trial.action is None or models.keys().isdisjoint(trial.parents):
            return trial
        inputs = tuple(models.get(m.run_id or "", m) for m in trial.action.models)
        return dataclasses.replace(trial, action=dataclasses.replace(trial.action, models=inputs))

    return dataclasses.replace(own, trials=tuple(map(bound, own.trials)), external=tuple(foreign))


def value_at(record: RunRecord, path: str) -> str:
    """Text at `params.<name>` or `tags.<name>`; empty when there is none."""
    group, _, key = path.partition(".")
    return str({"params": record.params, "tags": record.tags}.get(group, {}).get(key, ""))


def is_field_path(path: str) -> bool:
    """Whether `path` is a place rather than a name of ours."""
    return path.startswith(("params.", "tags."))
