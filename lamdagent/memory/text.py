"""The memory text: what the agent reads before it chooses (paper, step 4); of bounded length."""

from collections.abc import Iterator, Sequence

from lamdagent.enumeration import ActionSpace
from lamdagent.evaluation.task import Task
from lamdagent.pipeline import chain, figure, summary
from lamdagent.selection.cleaning import one_line
from lamdagent.trial import History, Trial

CHARACTERS_PER_TOKEN = 4
"""Of English text; good enough for a budget."""
BEST, RECENT, FAILED = 8, 8, 5
"""Most lines of each section before the budget cuts."""
LINE = 1500
"""Most characters of a line, enough for the LLM's notes: text from a run changes its own line and no other."""


def memory_text(history: History, space: ActionSpace, tasks: Sequence[Task], tokens: int) -> str:
    """Markdown of at most about `tokens` tokens: the most useful sections first, each cut line by line."""
    left = tokens * CHARACTERS_PER_TOKEN
    parts = []
    for title, lines in _sections(history, space, tasks):
        kept = []
        left -= len(title) + 5
        for line in (one_line(line, LINE) for line in lines):
            if len(line) + 3 > left:
                break
            kept.append(f"- {line}")
            left -= len(line) + 3
        if kept:
            parts.append(f"## {title}\n" + "\n".join(kept))
    return "\n\n".join(parts) + "\n"


def _sections(history: History, space: ActionSpace, tasks: Sequence[Task]) -> Iterator[tuple[str, list[str]]]:
    if history.reflection:
        yield "What was learnt so far", [" ".join(history.reflection.split())]
    bases = [t for t in history.trials if t.kind == "base"]
    yield "Base models, the reference", [_line(t, history) for t in bases]
    pipelines = [t for t in history.scored if t.kind == "action"]
    yield "Best pipelines so far", [_line(t, history) for t in pipelines[:BEST]]
    yield "Best on each task", list(_champions(history, tasks))
    yield "Latest trials, newest first", [_line(t, history) for t in reversed(history.actions[-RECENT:])]
    yield "Failures", [_failure(t) for t in reversed(history.failed[-FAILED:])]
    yield "Not tried yet", list(_untried(history, space))


def _line(trial: Trial, history: History) -> str:
    what = chain(trial.model, history) if trial.model else summary(trial.action) if trial.action else trial.name
    name = trial.model.name if trial.model else "no model"
    tasks = ", ".join(f"{task} {score.value:.3f}" for task, score in trial.scores.items())
    return f"{name}: score {figure(trial.score)}{f' ({tasks})' if tasks else ''}: {what}"


def _champions(history: History, tasks: Sequence[Task]) -> Iterator[str]:
    for task in tasks:
        scored = [t for t in history.scored if task.name in t.scores and t.model]
        if scored:
            best = max(scored, key=lambda t: task.level(t.scores[task.name]).value)
            assert best.model is not None
            yield f"{task.name} (weight {task.weight:g}): {best.scores[task.name].value:.3f} by {best.model.name}"


def _failure(trial: Trial) -> str:
    what = trial.action.describe() if trial.action else trial.name
    return f"{one_line(what, 300)}: {one_line(trial.status_reason) or 'no reason is known'}"


def _untried(history: History, space: ActionSpace) -> Iterator[str]:
    types = {t.action.type for t in history.actions if t.action}
    data = {d.name for t in history.actions if t.action for d in t.action.datasets}
    for action_type in space.types:
        if action_type.name not in types:
            yield f"action type {action_type.name}"
    for dataset in space.datasets:
        if dataset.name not in data:
            yield f"dataset {dataset.name}"
