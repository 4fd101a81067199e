"""Which models keep their weights, and why: a pure function of the history. pruning.py deletes the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lamdagent.evaluation.pareto import pareto_front
from lamdagent.evaluation.task import Task
from lamdagent.memory.trial import History, Trial


@dataclass(frozen=True)
class RetentionDecision:
    """A decision about the weights of one run."""

    trial: Trial
    kept: str
    """Why they stay; empty when they may go."""


def decide(history: History, tasks: Sequence[Task], keep_best: int, used: Mapping[str, str]) -> list[RetentionDecision]:
    """A decision for each action of ours whose weights are still there, best first, those without a score last.

    A run that was scored on other tasks keeps its weights. `used`: run id -> why it must stay, for reasons that the
    history does not hold, such as a registered model.
    """
    reasons = dict(used)
    for run_id, reason in _own_merits(history, tasks, keep_best):
        reasons.setdefault(run_id, reason)
    for trial in reversed(history.trials):  # youngest first: an ancestor comes after all that rest on it
        if trial.run_id in reasons:
            for parent in trial.parents:
                reasons.setdefault(parent, f"{trial.model.name if trial.model else trial.name} rests on it")
    owners = [t for t in history.actions if t.status == "finished" and not t.pruned and owns_weights(t)]
    ranked = sorted(owners, key=lambda t: (-(t.score.value if t.score else -1.0), t.started))
    return [RetentionDecision(trial, reasons.get(trial.run_id, "")) for trial in ranked]


def owns_weights(trial: Trial) -> bool:
    """Whether its weights lie in its own run: those of a result that was taken over from another experiment do not."""
    return trial.model is not None and trial.model.location.startswith(f"runs:/{trial.run_id}/")


def _own_merits(history: History, tasks: Sequence[Task], keep_best: int) -> Iterator[tuple[str, str]]:
    for trial in history.trials:
        if trial.status == "running":
            yield trial.run_id, "it is being made"
            for parent in trial.parents:
                yield parent, "an action that runs now takes it"
        elif trial.test_scores:
            yield trial.run_id, "tested"
    best = [t for t in history.scored if t.action and not t.pruned]
    fractions = sorted({t.action.data_fraction for t in best if t.action}, reverse=True)
    for fraction in fractions:  # each search compares what is of its own fraction only
        of = f" at data_fraction={fraction:g}" if len(fractions) > 1 else ""
        yield from _outstanding(
            [t for t in best if t.action and t.action.data_fraction == fraction], tasks, keep_best, of
        )
    for trial in history.actions:
        if trial.score is None:
            yield trial.run_id, "not scored on these tasks"


def _outstanding(best: Sequence[Trial], tasks: Sequence[Task], keep_best: int, of: str) -> Iterator[tuple[str, str]]:
    """Run id and reason for each outstanding trial of `best`, one fraction's, best first; `of`: which, for a person."""
    for place, trial in enumerate(best[:keep_best], 1):
        yield trial.run_id, f"number {place} of the best {keep_best}{of}"
    nodes = [
        {"id": t.run_id, "score": t.score, "scores": {name: (s.value, s.stderr) for name, s in t.scores.items()}}
        for t in best
    ]
    for run_id in pareto_front(nodes, tasks):
        yield run_id, f"on the Pareto front of the tasks{of}"
