"""A leaderboard as plain cells: the terminal, the notebook and the data frame draw the same one."""

from collections.abc import Sequence

from lamdagent.evaluation.gain import difference
from lamdagent.evaluation.task import Task
from lamdagent.memory.lineage import format_score
from lamdagent.memory.trial import Trial

TITLE = "Best first; +- is one standard error, [] a 95 % interval of the gain over the base (~ not item by item)"
SHOWN = 12
"""Most pipelines of a leaderboard."""


def heads(tasks: Sequence[Task]) -> list[str]:
    """The columns, with one for the test score on each of `tasks`."""
    return ["", "model", "search", "gain", "test", "gain", *(f"{task.name} (test)" for task in tasks)]


def cells(place: int, trial: Trial, tasks: Sequence[Task], base: Trial | None) -> list[str]:
    """One row; `place` counts from 1, `base` is the model that gains are over."""
    row = [str(place), trial.model.name if trial.model else "-", format_score(trial.score)]
    row += [_gain(trial, base), format_score(trial.test_score), _test_gain(trial, base)]
    return row + [format_score(trial.test_scores.get(task.name)) for task in tasks]


def table(trials: Sequence[Trial], tasks: Sequence[Task], base: Trial | None) -> list[list[str]]:
    """A row for each trial, in their order."""
    return [cells(place, trial, tasks, base) for place, trial in enumerate(trials, 1)]


def tested(trial: Trial) -> str:
    """The test scores as one line."""
    return ", ".join(f"{name} {format_score(score)}" for name, score in trial.test_scores.items())


def metrics_of(trial: Trial) -> dict[str, float]:
    """Metric -> value, under the names that the trial's MLflow run has: score, score_stderr, task.calls, test.calls."""
    named = {"score": trial.score, "test.score": trial.test_score}
    named |= {f"task.{name}": score for name, score in trial.scores.items()}
    named |= {f"test.{name}": score for name, score in trial.test_scores.items()}
    known = [(name, score) for name, score in named.items() if score is not None]
    return {name: score.value for name, score in known} | {f"{name}_stderr": score.stderr for name, score in known}


def _gain(trial: Trial, base: Trial | None) -> str:
    ours, theirs = trial.score, base.score if base else None
    return f"{ours.value - theirs.value:+.3f}" if ours and theirs and trial is not base else "-"


def _test_gain(trial: Trial, base: Trial | None) -> str:
    """With its 95 % confidence interval; `~`: not over the same items, so wider than it need be."""
    if base is None or trial is base:
        return "-"
    gain = difference(trial.test_gain, trial.test_score, base.test_score)
    return f"{gain}{'' if gain.pairing == 'paired' else ' ~'}" if gain else "-"
