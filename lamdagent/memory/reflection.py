"""The memory update (paper, section 3.4): the agent LLM rewrites its notes from what happened and the notes so far."""

from collections.abc import Sequence

from lamdagent.enumeration.space import ActionSpace
from lamdagent.errors import LLMUnavailable
from lamdagent.llm import templates
from lamdagent.llm.templates import LLMSettings
from lamdagent.llm.types import LLM
from lamdagent.memory.trial import History, Trial
from lamdagent.text import as_data, one_line

BEST, RECENT, FAILED = 10, 10, 5
"""How many trials of each sort are told; the notes so far stand for the rest."""


def reflect(client: LLM, history: History, old: str, space: ActionSpace, settings: LLMSettings | None = None) -> str:
    """New notes: what was learnt, what is promising and unexplored. Cleaned, on one line, cut to the settings' length.

    Never raises for the LLM: `old` is kept when it is silent or says nothing.
    """
    settings = settings or LLMSettings()
    try:
        reply = client.ask(reflection_messages(history, old, space, settings))
    except LLMUnavailable:
        return old
    notes = reply.rpartition("</think>")[2]  # some servers leave a model's thoughts in
    return one_line(notes, settings.reflection_chars) or old


def reflection_messages(history: History, old: str, space: ActionSpace, settings: LLMSettings) -> list[dict[str, str]]:
    """The prompt of `reflect`."""
    parts = {
        "old": old or "none yet",
        "best": _lines(history.scored[:BEST]),
        "recent": _lines([t for t in history.actions if t.status != "running"][-RECENT:]),
        "failed": _lines(history.failed[-FAILED:]) + "\n" + _untried(history, space),
    }
    data = {key: as_data(text.strip(), settings.memory_chars // 4) for key, text in parts.items()}
    return templates.chat("reflection", goal=templates.goal_part(settings), **data)


def _lines(trials: Sequence[Trial]) -> str:
    return "\n".join(map(_line, trials)) or "none"


def _line(trial: Trial) -> str:
    made = trial.action.describe() if trial.action else "initial model"
    name = f"{trial.model.name} = " if trial.model else ""
    if trial.score is None:
        return one_line(f"{name}{made}: failed, {trial.status_reason or 'no score'}", 500)
    tasks = ", ".join(f"{task} {score.value:.3f}" for task, score in trial.scores.items())
    return one_line(f"{name}{made}: {trial.score.value:.3f} +- {trial.score.stderr:.3f} ({tasks})", 500)


def _untried(history: History, space: ActionSpace) -> str:
    tried = {trial.action.type for trial in history.experience}
    names = [t.name for t in space.types if t.name not in tried]
    return f"Never tried: {', '.join(names)}" if names else ""
