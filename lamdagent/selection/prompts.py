"""The prompts of the two selection calls (paper, section 3.2), pure functions of a turn; also what `dry_run` prints."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence

from lamdagent.actions.action import Action, ActionType, Object, Slot
from lamdagent.llm.templates import LLMSettings, chat, goal_part, prompt
from lamdagent.llm.types import Message
from lamdagent.memory.trial import History
from lamdagent.objects.dataset import Dataset
from lamdagent.objects.model import Model
from lamdagent.objects.object_kinds import noun_of
from lamdagent.selection.policy import Turn
from lamdagent.selection.schemas import object_form, open_grid
from lamdagent.text import as_data, one_line, quoted


def type_messages(turn: Turn, settings: LLMSettings) -> list[Message]:
    """The first call: which action type. Options are numbered from 1 in the order of `turn.space.available()`."""
    types = turn.space.available()
    lines = (f"{i}. {_type_line(turn, t, settings)}" for i, t in enumerate(types, 1))
    return _messages("type", turn, settings, types="\n".join(lines))


def object_messages(turn: Turn, action_type: ActionType, settings: LLMSettings) -> list[Message]:
    """The second call: all objects and hyperparameters at once, so that none depends on the order of asking."""
    options = turn.space.options(action_type)
    parts = [_slot_part(slot, options[slot.name], turn, settings) for slot in action_type.slots]
    parts += [
        f"### {key} (choose one value)\n" + "\n".join(f"- {json.dumps(v)}" for v in values)
        for key, values in open_grid(action_type).items()
    ]
    fixed = [f"{key} = {json.dumps(values[0])}" for key, values in action_type.grid.items() if len(values) == 1]
    parts += ["Fixed: " + ", ".join(fixed)] if fixed else []
    description = quoted(action_type.description, settings.description_chars)
    fields = {"type": one_line(action_type.name), "description": description, "form": object_form(action_type)}
    return _messages("objects", turn, settings, slots="\n\n".join(parts), **fields)


def shortlist_messages(turn: Turn, lines: Sequence[str], settings: LLMSettings) -> list[Message]:
    """The question of the hybrid: which of the numbered `lines`, or none of them."""
    return _messages("shortlist", turn, settings, shortlist="\n".join(lines))


def fitted(
    build: Callable[[LLMSettings], list[Message]], settings: LLMSettings, count: Callable[[Sequence[Message]], int]
) -> tuple[list[Message], LLMSettings]:
    """The messages that `build` makes, within `settings.prompt_tokens` by `count`, and the settings that made them.

    Options, memory and descriptions are shortened by a third until it fits or 5 options are left.
    """
    while True:
        messages = build(settings)
        if count(messages) <= settings.prompt_tokens or (settings.max_options <= 5 and settings.memory_chars <= 1000):
            return messages, settings
        settings = dataclasses.replace(
            settings,
            max_options=max(5, settings.max_options * 2 // 3),
            memory_chars=max(1000, settings.memory_chars * 2 // 3),
            description_chars=max(40, settings.description_chars * 2 // 3),
        )


def shown(options: Sequence[Object], history: History, limit: int) -> list[Object]:
    """At most `limit` of `options`, best score first, then models by newest and datasets as declared.

    A quarter of the places is kept for what a ranking by score would push out: initial models, untried datasets.
    """
    rank = _ranking(history)
    order = [o for o in reversed(options) if isinstance(o, Model)] or options
    ranked = sorted(order, key=lambda o: -rank.get(o.fingerprint, -1.0))
    if len(ranked) <= limit:
        return ranked
    reserve = [o for o in options if (o.initial if isinstance(o, Model) else o.fingerprint not in rank)][: limit // 4]
    kept = {o.fingerprint for o in reserve}
    best = [o for o in ranked if o.fingerprint not in kept][: limit - len(reserve)]
    kept |= {o.fingerprint for o in best}
    return [o for o in ranked if o.fingerprint in kept]


def _ranking(history: History) -> dict[str, float]:
    """Fingerprint of a model -> its score; of a dataset -> the best score of what was trained on it."""
    rank: dict[str, float] = {}
    for trial in sorted((*history.scored, *history.external_scored), key=lambda t: -t.score.value):
        inputs = trial.action.data if trial.action else ()
        for fingerprint in [trial.model.fingerprint, *(ref.fingerprint for ref in inputs)]:
            rank.setdefault(fingerprint, trial.score.value)  # the first mention is the best
    return rank


def _type_line(turn: Turn, action_type: ActionType, settings: LLMSettings) -> str:
    slots = "; ".join(f"{slot.name}: {_wanted(slot)}" for slot in action_type.slots)
    description = quoted(action_type.description, settings.description_chars)
    return f"{one_line(action_type.name)}: {description} (takes {slots}; {turn.space.size(action_type)} combinations)"


def _wanted(slot: Slot) -> str:
    noun = noun_of(slot.kind)
    role = "" if slot.role == "any" else f"{slot.role} "
    many = (
        ""
        if slot.maximum == 1
        else f"{slot.minimum} to {slot.maximum} "
        if slot.maximum > slot.minimum
        else f"{slot.minimum} "
    )
    other = f" other than {slot.distinct_from}, with the same vocabulary" if slot.distinct_from else ""
    columns = f" with {', '.join(slot.columns)}" if slot.columns else ""
    return f"{many or 'one '}{role}{noun}{other}{columns}"


def _slot_part(slot: Slot, options: Sequence[Object], turn: Turn, settings: LLMSettings) -> str:
    listed = shown(options, turn.history, settings.max_options)
    order = "; another order makes another model" if slot.ordered else "; their order does not matter"
    order = f"; {slot.complement} is the share of the first one you name" if slot.complement else order
    head = f"### {slot.name} (choose {_wanted(slot)}{order if slot.maximum > 1 else ''})"
    lines = [f"{i}. {_thing_line(thing, settings)}" for i, thing in enumerate(listed, 1)]
    left = len(options) - len(listed)
    return "\n".join([head, *lines] + ([f"({left} more are left out: lower or no score)"] if left else []))


def _thing_line(thing: Object, settings: LLMSettings) -> str:
    """A model is a bare neutral name: what is known of it stands in the memory text, alike for initial and produced."""
    name = one_line(thing.name, settings.description_chars)
    if isinstance(thing, Model):
        return name
    size = f" ({thing.rows} rows)" if isinstance(thing, Dataset) else ""
    return f"{name}: {quoted(thing.description, settings.description_chars)}{size}"


def _messages(name: str, turn: Turn, settings: LLMSettings, **fields: str) -> list[Message]:
    wanted = [("explore", settings.exploration), ("debias", settings.debias)]
    directives = "\n".join(prompt(directive).strip() for directive, on in wanted if on)
    pending = as_data("\n".join(_pending_lines(turn.pending)) or "none", settings.memory_chars)
    memory = as_data(turn.memory() or "nothing yet: this is the first turn", settings.memory_chars)
    return chat(name, goal=goal_part(settings), memory=memory, pending=pending, directives=directives, **fields)


def _pending_lines(pending: Iterable[Action]) -> Iterable[str]:
    return (one_line(action.describe(), 400) for action in pending)
