"""Seed repeats: each finalist's whole pipeline made again with other seeds, to see how much of its score is luck.

A finalist was chosen for its score, so its own seed flatters it. Further seeds of the same pipeline were not chosen. A
repeat is a replay with another seed; the repeats of all finalists are one phase of the search.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lamdagent.actions.action import ActionType
from lamdagent.memory.lineage import ancestors
from lamdagent.memory.trial import POLICY, History, Trial
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.scaling.replay_plan import Replay, ReplayOverrides
from lamdagent.scaling.replay_policy import ReplayPolicy
from lamdagent.selection.policy import Decision, Turn


@dataclass(frozen=True)
class SeedVariance:
    """The scores of one pipeline with seeds that were not chosen, on the search split."""

    trial: Trial
    scores: tuple[float, ...]
    """One score per further seed, without the seeds that failed."""
    asked: int
    """The number of further seeds that were tried."""

    @property
    def mean(self) -> float:
        """The mean of `scores`, of which there must be one."""
        return fmean(self.scores)

    @property
    def deviation(self) -> float:
        """The standard deviation over the seeds; 0 for a single one."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0

    def __str__(self) -> str:
        """One line for the user."""
        assert self.trial.model is not None and self.trial.score is not None
        said = f"{self.trial.model.name} ({self.trial.score.value:.3f} when it was chosen) with further seeds"
        if not self.scores:
            return f"{said}: none of {self.asked} could be made"
        figures = ", ".join(f"{score:.3f}" for score in self.scores)
        failed = f"; {self.asked - len(self.scores)} failed" if len(self.scores) < self.asked else ""
        return f"{said}: {figures}; mean {self.mean:.3f}, standard deviation {self.deviation:.3f}{failed}"


class SeedRepeats:
    """The policy of the seed repeats: picks the next due step of any finalist's pipeline with any seed."""

    def __init__(
        self, finalists: Sequence[Trial], history: History, types: Sequence[ActionType], seeds: Sequence[int]
    ) -> None:
        """Every one of `finalists` is made again with every one of `seeds`; a step that fails is not tried again."""
        self._finalists = finalists
        self._seeds = seeds
        self._replays = {
            (trial.run_id, seed): _repeat(trial, history, types, seed) for trial in finalists for seed in seeds
        }

    @property
    def waiting(self) -> bool:
        """Whether the last answer was None because steps run that others need as inputs."""
        return any(replay.waiting for replay in self._replays.values())

    def __call__(self, turn: Turn) -> Decision | None:
        """The first due step; None when no step can start now, or ever."""
        for replay in self._replays.values():
            if decision := replay(turn):
                reason = f"A finalist's pipeline with seed {decision.action.seed}."
                return dataclasses.replace(decision, policy=POLICY, reason=reason, replay_of="")
        return None

    def variances(self, history: History) -> list[SeedVariance]:
        """The scores of every finalist over the seeds, in the order of the finalists."""
        return [SeedVariance(trial, tuple(self._scores(trial, history)), len(self._seeds)) for trial in self._finalists]

    def _scores(self, trial: Trial, history: History) -> list[float]:
        made = (self._replays[trial.run_id, seed].made(history) for seed in self._seeds)
        return [one.score.value for trials in made for one in trials if one.score]


def _repeat(trial: Trial, history: History, types: Sequence[ActionType], seed: int) -> ReplayPolicy:
    replay = Replay((trial,), history, ReplayOverrides(seed=seed, one_seed=True))
    return ReplayPolicy(replay, types, {}, given=_given(replay), retry=False)


def _given(replay: Replay) -> Mapping[str, Model | Dataset]:
    """Fingerprint -> object that no step of the pipeline makes: initial models, models of others, and their data."""
    (last,) = replay.trials
    found: dict[str, Model | Dataset] = {
        model.fingerprint: model
        for model, made in ancestors(last, replay.history).items()
        if made is None or made.action is None
    }
    made_here = {step.dataset.fingerprint for step in replay.sources if step.dataset}
    used = [data for step in replay.sources if step.action for data in step.action.datasets if data.run_id]
    return found | {data.fingerprint: data for data in used if data.fingerprint not in made_here}
