"""The finalists' whole pipelines once more with other seeds: how much of a score is luck of the training?

A finalist was chosen for its score, so its own seed flatters it. Further seeds of the same pipeline were not chosen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lamdagent.actions.action import Action, ActionType
from lamdagent.memory.lineage import ancestors
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.scaling.replay_plan import made_again, transplanted


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
    now: dict[str, Model | Dataset] = {}
    last: Trial | None = None
    steps = {**ancestors(trial, history), trial.model: trial}
    for model, made in steps.items():
        if made is None or made.action is None:
            now[model.fingerprint] = model
            continue
        kind = _at_hand(made.action, types)
        last = do(transplanted(made.action, now, kind, seed, made.action.data_fraction)) if kind else None
        if last is None or last.model is None:
            return None
        now[model.fingerprint] = last.model
        now |= made_again(made, last)
    return last


def _at_hand(action: Action, types: Sequence[ActionType]) -> ActionType | None:
    """The action's type, if it and the datasets are configured: an older search may have had others."""
    return next((kind for kind in types if kind.name == action.type and not action.missing), None)
