"""The finalists' whole pipelines once more with other seeds: how much of a score is luck of the training?

A finalist was chosen for its score, so its own seed flatters it. Further seeds of the same pipeline were not chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from types import MappingProxyType

from lamdagent.actions.action import Action, ActionType
from lamdagent.enumeration import canonical, fingerprint_of
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.pipeline import past
from lamdagent.trial import History, Trial

POLICY = "repeat"
"""Of runs that repeat a finalist: they are never finalists themselves."""


@dataclass(frozen=True)
class Spread:
    """Scores of one pipeline with seeds that steered nothing, on the search split."""

    trial: Trial
    scores: tuple[float, ...]
    """One per further seed; those that failed are not there."""
    asked: int
    """How many further seeds there should be."""

    @property
    def mean(self) -> float:
        """Of `scores`, of which there must be one."""
        return fmean(self.scores)

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds; 0 for a single one."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0

    def __str__(self) -> str:
        """For the user."""
        assert self.trial.model is not None and self.trial.score is not None
        said = f"{self.trial.model.name} ({self.trial.score.value:.3f} when it was chosen) with further seeds"
        if not self.scores:
            return f"{said}: none of {self.asked} could be made"
        figures = ", ".join(f"{score:.3f}" for score in self.scores)
        failed = f"; {self.asked - len(self.scores)} failed" if len(self.scores) < self.asked else ""
        return f"{said}: {figures}; mean {self.mean:.3f}, standard deviation {self.deviation:.3f}{failed}"


def spreads(
    finalists: Sequence[Trial],
    history: History,
    types: Sequence[ActionType],
    seeds: Sequence[int],
    do: Callable[[Action], Trial | None],
) -> list[Spread]:
    """Every finalist's pipeline with each of `seeds`; `do` gives the trial of an action, None where it fails."""
    found = []
    for trial in finalists:
        made = [_again(trial, history, types, seed, do) for seed in seeds]
        scores = tuple(one.score.value for one in made if one is not None and one.score is not None)
        found.append(Spread(trial, scores, len(seeds)))
    return found


def _again(
    trial: Trial, history: History, types: Sequence[ActionType], seed: int, do: Callable[[Action], Trial | None]
) -> Trial | None:
    """The last trial of the pipeline made with `seed`; None if one of its steps cannot be made."""
    assert trial.model is not None
    now: dict[str, Model] = {}
    last: Trial | None = None
    steps = {**past(trial, history), trial.model: trial}
    for model, made in steps.items():
        if made is None or made.action is None:
            now[model.fingerprint] = model
            continue
        step = made.action
        last = do(again(step, now, types, seed, step.data_fraction)) if _at_hand(step, types) else None
        if last is None or last.model is None:
            return None
        now[model.fingerprint] = last.model
    return last


def _at_hand(action: Action, types: Sequence[ActionType]) -> bool:
    """Whether the action's type and datasets are configured: an older search may have had others."""
    return action.type in [kind.name for kind in types] and all(dataset.path for dataset in action.datasets)


def again(
    action: Action,
    now: Mapping[str, Model],
    types: Sequence[ActionType],
    seed: int,
    fraction: float,
    datasets: Mapping[str, Dataset] = MappingProxyType({}),
) -> Action:
    """The same step on the models that stand for its inputs `now`, and on `datasets` of the same names, if any."""
    kind = next(one for one in types if one.name == action.type)
    data = [datasets.get(dataset.name, dataset) for dataset in action.datasets]
    named = {model.name: now[model.fingerprint] for model in action.models} | {d.name: d for d in data}
    objects = {slot: [named[name] for name in names] for slot, names in action.slots.items()}
    ordered, values = canonical(kind, objects, action.hyperparameters)
    return replace(
        action,
        models=tuple(o for slot in kind.slots for o in ordered[slot.name] if isinstance(o, Model)),
        datasets=tuple(o for slot in kind.slots for o in ordered[slot.name] if isinstance(o, Dataset)),
        hyperparameters=values,
        slots={name: tuple(o.name for o in chosen) for name, chosen in ordered.items()},
        fingerprint=fingerprint_of(kind, ordered, values, seed, fraction),
        seed=seed,
        data_fraction=fraction,
    )
