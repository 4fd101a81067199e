"""A trial is one scored run of the store, ours or foreign; the history is all of them, in order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeGuard

from lamdagent.actions.action import Action
from lamdagent.evaluation.gain import Gain
from lamdagent.evaluation.task import Score, Split
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model

Status = Literal["finished", "failed", "running"]


@dataclass(frozen=True)
class Trial:
    """A trial: all that is known of one base model or one action."""

    run_id: str
    kind: Literal["base", "action"]
    status: Status
    action: Action | None
    """None for a base model."""
    model: Model | None
    """The model that was scored; None when the action failed."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """Task name -> score on the task's own scale, `search` split."""
    score: Score | None = None
    """The weighted score; None when failed or not comparable."""
    test_scores: Mapping[str, Score] = field(default_factory=dict)
    """Task name -> score on the `test` split; only for the few that were tested."""
    test_score: Score | None = None
    gain: Gain | None = None
    """Over the best base when it was a finalist, as that search computed it: use `gain.difference`."""
    test_gain: Gain | None = None
    """The same on the `test` split."""
    state: str = ""
    """`promotion.State` of a finalist."""
    state_reason: str = ""
    policy: str = ""
    reason: str = ""
    """Why the policy picked it."""
    status_reason: str = ""
    """Why it failed, for a person."""
    failure: str = ""
    """The stable kind of the failure, see errors.ActionFailed."""
    parents: tuple[str, ...] = ()
    """Run ids of the input models, in slot order."""
    started: int = 0
    """Milliseconds since the epoch."""
    seconds: float = 0.0
    """Wall time of action and evaluation."""
    search_run_id: str = ""
    """The search run that it belongs to."""
    name: str = ""
    """Name of the MLflow run."""
    reused: str = ""
    """Run id of an older run whose weights (and scores, as far as they are of the same tasks) stand here."""
    pruned: bool = False
    """Its weights were deleted (see retention.py): it still tells, but is no input any more."""
    source: str = ""
    """Source of the run: a name under `memory.sources`; empty when it is ours."""
    dataset: Dataset | None = None
    """Dataset that its action made besides the model, for others to train on."""


class ActionTrial(Trial):
    """A trial of a known action, ended or not. These classes narrow types; every instance is made as a `Trial`."""

    action: Action


class ScoredTrial(Trial):
    """A trial whose model has a score on the current tasks."""

    model: Model
    score: Score


class ScoredAction(ActionTrial, ScoredTrial):
    """A scored trial of a known action: a pipeline that can be compared."""


def has_action(trial: Trial) -> TypeGuard[ActionTrial]:
    """True for a trial of a known action."""
    return trial.action is not None


def has_score(trial: Trial) -> TypeGuard[ScoredTrial]:
    """True for a trial whose model has a score on the current tasks."""
    return trial.score is not None and trial.model is not None


def is_scored_action(trial: Trial) -> TypeGuard[ScoredAction]:
    """True for a scored trial of a known action."""
    return has_action(trial) and has_score(trial)


@dataclass(frozen=True)
class History:
    """All trials, oldest first. Never changes: a turn makes a new one.

    Trials of others stand apart in `external`: they steer, but nothing of theirs is ever the best, the champion or
    tested, since others have measured it. All properties but `by_model` and `experience` are of ours alone.
    """

    trials: tuple[Trial, ...] = ()
    reflection: str = ""
    """The LLM's latest memory update; empty without an LLM."""
    external: tuple[Trial, ...] = ()
    """Trials that could be understood from others' runs, oldest first."""

    def __iter__(self) -> Iterator[Trial]:
        """Oldest first."""
        return iter(self.trials)

    @cached_property
    def by_run(self) -> Mapping[str, Trial]:
        """Run id -> trial."""
        return {trial.run_id: trial for trial in self.trials}

    @cached_property
    def by_model(self) -> Mapping[str, Trial]:
        """Model fingerprint -> the trial that made (or scored) it, others' too; ours where both did."""
        return {trial.model.fingerprint: trial for trial in (*self.external, *self.trials) if trial.model}

    @cached_property
    def bases(self) -> tuple[Trial, ...]:
        """Trials that are initial models, oldest first."""
        return tuple(trial for trial in self.trials if trial.kind == "base")

    @cached_property
    def actions(self) -> tuple[ActionTrial, ...]:
        """Trials that are actions, oldest first."""
        return tuple(filter(has_action, self.trials))

    @cached_property
    def experience(self) -> tuple[ActionTrial, ...]:
        """Trials of known actions to learn from, others' first, then ours."""
        return (*filter(has_action, self.external), *self.actions)

    @cached_property
    def scored(self) -> tuple[ScoredTrial, ...]:
        """Trials with a score, best first; the earlier one first among equals."""
        return best_first(self.trials)

    @cached_property
    def pipelines(self) -> tuple[ScoredAction, ...]:
        """Scored actions, best first."""
        return tuple(filter(is_scored_action, self.scored))

    @cached_property
    def external_scored(self) -> tuple[ScoredTrial, ...]:
        """Others' trials with a score, best first."""
        return best_first(self.external)

    @cached_property
    def failed(self) -> tuple[Trial, ...]:
        """Trials that failed."""
        return tuple(trial for trial in self.trials if trial.status == "failed")

    def scores_of(self, model: str, split: Split) -> dict[str, Score]:
        """Task -> score of the model of that fingerprint, whichever of our runs has measured it."""
        of = [t for t in self.trials if t.model and t.model.fingerprint == model]
        every = [t.scores if split == "search" else t.test_scores for t in of]
        return {name: score for scores in every for name, score in scores.items()}

    def base(self) -> ScoredTrial | None:
        """The best base model: what a pipeline has to beat."""
        return next((trial for trial in self.scored if trial.kind == "base"), None)

    def base_score(self) -> Score | None:
        """The score of `base`."""
        base = self.base()
        return base.score if base else None


def best_first(trials: Iterable[Trial]) -> tuple[ScoredTrial, ...]:
    """The scored ones of the trials, best first; the earlier one first among equals."""
    return tuple(sorted(filter(has_score, trials), key=lambda t: (-t.score.value, t.started)))


RETRYABLE = ("lost_worker", "interrupted", "orphan", "no_space", "budget")
"""Failures that say little or nothing about the action: it may be chosen again, and no policy holds them against it."""


MOST_LOST = 2
"""Workers that one action may cost: after so many it is the action, not the machine."""


POLICY = "repeat"
"""Policy of runs that repeat a finalist: they are never finalists themselves."""
