"""The paper's policy: the agent LLM names an action type, then all its objects (paper, section 3.2)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lamdagent.actions.action import Action, ActionType, Scalar, Slot
from lamdagent.errors import IllegalAction, LLMUnavailable
from lamdagent.llm.conversation import Conversation, Query
from lamdagent.llm.templates import LLMSettings
from lamdagent.llm.types import LLM
from lamdagent.selection import parsing, prompts, schemas
from lamdagent.selection.policy import Decision, Policy, Turn
from lamdagent.text import one_line


class LLMPolicy:
    """Asks the LLM; corrects it a few times; lets `fallback` decide when it stays unusable or silent."""

    def __init__(self, client: LLM, fallback: Policy, settings: LLMSettings | None = None) -> None:
        """`fallback` must not need an LLM."""
        self.client = client
        self.fallback = fallback
        self.settings = settings or LLMSettings()

    def __call__(self, turn: Turn) -> Decision | None:
        """See `Policy`. A turn that the fallback decided says so in `policy`, `reason` and `details`."""
        types = turn.space.available()
        if not types:
            return None
        conversation = Conversation(self.client, self.settings.corrections)
        try:
            action, reason = self.choose(turn, conversation)
        except (LLMUnavailable, IllegalAction) as fault:
            return fall_back(self.fallback(turn), conversation, str(fault))
        return Decision(action, "llm", reason, **conversation.record(), details={"llm": conversation.calls})

    def choose(self, turn: Turn, conversation: Conversation) -> tuple[Action, str]:
        """The two questions: an action and its reason.

        Raises:
            IllegalAction: an answer stays unusable.
            LLMUnavailable: there is no answer.
        """
        action_type, why = self._type(turn, turn.space.available(), conversation)
        action, reason = self._objects(turn, action_type, conversation)
        return action, reason or why

    def _type(self, turn: Turn, types: Sequence[ActionType], conversation: Conversation) -> tuple[ActionType, str]:
        names = [t.name for t in types]
        conversation.offered += [f"type: {name}" for name in names]

        def read(text: str) -> tuple[ActionType, str]:
            fields = parsing.fields_of(text)
            value = _first(fields, "type", "action_type", "action", "number", "choice")
            if value is None:
                value = parsing.only_number(text) if not fields else None
            if value is None:
                raise IllegalAction('the answer is no JSON object with the key "type"')
            return types[parsing.choose(names, value)], reason_of(fields)

        messages, _ = prompts.fitted(lambda s: prompts.type_messages(turn, s), self.settings, self.client.count)
        offered = "The types are: " + ", ".join(f"{i}. {one_line(name)}" for i, name in enumerate(names, 1))
        return conversation.ask(
            Query("type", messages, schemas.type_schema(len(names)), offered, schemas.TYPE_FORM), read
        )

    def _objects(self, turn: Turn, action_type: ActionType, conversation: Conversation) -> tuple[Action, str]:
        options = turn.space.options(action_type)
        messages, settings = prompts.fitted(
            lambda s: prompts.object_messages(turn, action_type, s), self.settings, self.client.count
        )
        lists = {s.name: _numbered(options[s.name], turn, settings) for s in action_type.slots}
        counts = {name: min(len(things), settings.max_options) for name, things in lists.items()}
        conversation.offered += [
            f"{slot}: {thing.name}" for slot, things in lists.items() for thing in things[: counts[slot]]
        ]

        def read(text: str) -> tuple[Action, str]:
            fields = parsing.fields_of(text)
            if not fields:
                raise IllegalAction("the answer holds no complete JSON object")
            objects = {s.name: _pick(s, lists[s.name], counts[s.name], fields) for s in action_type.slots}
            values = {key: _value(key, allowed, fields) for key, allowed in schemas.open_grid(action_type).items()}
            return turn.space.make(action_type.name, objects, values), reason_of(fields)

        schema = schemas.object_schema(action_type, counts)
        offered = "The numbered lists and values above are all that there is to choose from."
        return conversation.ask(Query("objects", messages, schema, offered, schemas.object_form(action_type)), read)


def fall_back(decision: Decision | None, conversation: Conversation, fault: str) -> Decision | None:
    """`decision` of a policy without an LLM, with why it had to step in and what was said before."""
    if decision is None:
        return None
    note = one_line(f"the LLM gave no usable choice ({fault})", 400)
    return dataclasses.replace(
        decision,
        reason=f"{decision.reason} [fallback: {note}]",
        details={**decision.details, "llm": conversation.calls, "fallback": note},
        **conversation.record(decision.offered),
    )


def _numbered(options: Sequence[Any], turn: Turn, settings: LLMSettings) -> list[Any]:
    """All options: first those with a number, as the prompt lists them, then those that only have a name."""
    listed = prompts.shown(options, turn.history, settings.max_options)
    seen = {thing.fingerprint for thing in listed}
    return listed + [thing for thing in options if thing.fingerprint not in seen]


def _pick(slot: Slot, things: Sequence[Any], offered: int, fields: Mapping[str, Any]) -> list[Any]:
    names = [thing.name for thing in things]
    value = fields.get(slot.name.lower())
    if value is None:
        raise IllegalAction(f'the key "{slot.name}" is missing')
    try:
        if slot.maximum > 1:
            return [things[i] for i in parsing.choose_several(names, value, offered)]
        return [things[parsing.choose(names, value, offered)]]
    except IllegalAction as fault:
        raise IllegalAction(f"{slot.name}: {fault}") from None


def _value(key: str, allowed: Sequence[Scalar], fields: Mapping[str, Any]) -> Scalar:
    if key.lower() not in fields:
        raise IllegalAction(f'the key "{key}" is missing')
    try:
        return parsing.choose_value(allowed, fields[key.lower()])
    except IllegalAction as fault:
        raise IllegalAction(f"{key}: {fault}") from None


def _first(fields: Mapping[str, Any], *keys: str) -> Any:
    return next((fields[key] for key in keys if fields.get(key) is not None), None)


def reason_of(fields: Mapping[str, Any]) -> str:
    """The reason in an answer, cleaned."""
    return one_line(fields.get("reason") or "", 500)
