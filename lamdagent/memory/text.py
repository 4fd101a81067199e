"""The memory text: what the agent reads before it chooses (paper, step 4); of bounded length."""

from collections.abc import Iterator, Sequence
from typing import Any

from lamdagent.actions.action import Action
from lamdagent.enumeration.space import ActionSpace
from lamdagent.evaluation.task import Task
from lamdagent.memory.lineage import format_score, lineage_string, summary
from lamdagent.memory.trial import RETRYABLE, History, Trial
from lamdagent.text import one_line

CHARACTERS_PER_TOKEN = 4
"""Average of English text; good enough for a budget."""
BEST, RECENT, FAILED, UNTRIED, FOREIGN = 8, 8, 5, 12, 6
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
    yield "Base models, the reference", [_line(t, history) for t in history.bases]
    yield "Best pipelines so far", [_line(t, history) for t in history.pipelines[:BEST]]
    yield "Best on each task", list(_champions(history, tasks))
    yield "Latest trials, newest first", [_line(t, history) for t in reversed(history.actions[-RECENT:])]
    yield "Others' runs, measured by them: hints, not results of ours", list(_foreign(history))
    yield "Failures", [_failure(t) for t in reversed(_told(history.failed)[-FAILED:])]
    yield "Not tried yet", list(_untried(history, space))


def _line(trial: Trial, history: History) -> str:
    what = (
        lineage_string(trial.model, history) if trial.model else summary(trial.action) if trial.action else trial.name
    )
    at_hand = trial.model and (trial.model.location or not trial.source)
    name = trial.model.name if trial.model and at_hand else "no model"
    tasks = ", ".join(f"{task} {score.value:.3f}" for task, score in trial.scores.items())
    return f"{name}: score {format_score(trial.score)}{f' ({tasks})' if tasks else ''}: {what}"


def _foreign(history: History) -> Iterator[str]:
    """The best of others' trials, their models that are at hand without a score, and what failed with them."""
    yield from (f"from {t.source}: {_line(t, history)}" for t in history.external_scored[:FOREIGN])
    unscored = [t for t in history.external if t.model and t.model.location and not t.score and not t.model.initial]
    for trial in unscored[-FOREIGN:]:
        yield f"from {trial.source}: {_line(trial, history)} (not scored, may be an input)"
    failed = [t for t in history.external if t.status == "failed"]
    yield from (f"from {t.source}: {_failure(t)}" for t in reversed(failed[-FAILED:]))


def _champions(history: History, tasks: Sequence[Task]) -> Iterator[str]:
    for task in tasks:
        scored = [t for t in history.scored if task.name in t.scores]
        if scored:
            sign = 1 if task.higher_is_better else -1
            best = max(scored, key=lambda t: sign * t.scores[task.name].value)
            yield f"{task.name} (weight {task.weight:g}): {best.scores[task.name].value:.3f} by {best.model.name}"


def _told(failed: Sequence[Trial]) -> list[Trial]:
    """Failures that say something about an action; of the others only lost workers, which it may have ended."""
    return [t for t in failed if t.failure not in RETRYABLE or t.failure == "lost_worker"]


def _failure(trial: Trial) -> str:
    what = trial.action.describe() if trial.action else trial.name
    hint = " (says little about the action)" if trial.failure == "lost_worker" else ""
    return f"{one_line(what, 300)}: {one_line(trial.status_reason) or 'no reason is known'}{hint}"


def _untried(history: History, space: ActionSpace) -> Iterator[str]:
    """Types and datasets that nobody has tried, others included; of tried types what was not tried with them."""
    tried = {key for t in history.experience for key in _parts(t.action)}
    used = {ref.name for t in history.experience for ref in t.action.data}
    found = [f"action type {t.name}" for t in space.types if (t.name,) not in tried]
    found += [f"dataset {d.name}" for d in space.datasets if d.name not in used]
    found += [f"{r.kind} {r.name}" for r in space.resources if r.name not in used]
    for action_type in (t for t in space.types if (t.name,) in tried):
        kinds = {slot.kind for slot in action_type.slots}
        fitting = [o.name for o in space.inputs if o.kind in kinds and o.name in used]
        found += [f"{action_type.name} on {name}" for name in fitting if (action_type.name, name) not in tried]
        for key in action_type.choices:
            left = [v for v in action_type.grid[key] if (action_type.name, key, v) not in tried]
            found += [f"{action_type.name} with {key}={value}" for value in left]
    yield from found[:UNTRIED]
    if len(found) > UNTRIED:
        yield f"and {len(found) - UNTRIED} more such combinations"


def _parts(action: Action) -> Iterator[tuple[Any, ...]]:
    yield (action.type,)
    yield from ((action.type, ref.name) for ref in action.data)
    yield from ((action.type, key, action.hyperparameters[key]) for key in action.choices)
