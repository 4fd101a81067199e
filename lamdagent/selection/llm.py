"""The paper's policy: the agent LLM names an action type, then all its objects (paper, section 3.2)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lamdagent.actions.action import Action, ActionType, Scalar, Slot
from lamdagent.errors import IllegalAction, LLMUnavailable
from lamdagent.selection import forms, prompting, replies
from lamdagent.selection.calls import Message
from lamdagent.selection.cleaning import one_line
from lamdagent.selection.client import Client
from lamdagent.selection.policy import Decision, Policy, Turn
from lamdagent.selection.prompting import LLMSettings

T = TypeVar("T")


@dataclass
class Talk:
    """What was said in one turn."""

    traces_before: int
    usd_before: float
    calls: list[dict[str, str]] = field(default_factory=list)
    """Each with `call` (type or objects), `reply` (cut) and, when unusable, `fault`."""
    offered: list[str] = field(default_factory=list)


class LLMPolicy:
    """Asks the LLM; corrects it a few times; lets `fallback` decide when it stays unusable or silent."""

    def __init__(self, client: Client, fallback: Policy, settings: LLMSettings | None = None) -> None:
        """`fallback` must not need an LLM."""
        self.client = client
        self.fallback = fallback
        self.settings = settings or LLMSettings()

    def __call__(self, turn: Turn) -> Decision | None:
        """See `Policy`. A turn that the fallback decided says so in `policy`, `reason` and `details`."""
        types = turn.space.available()
        if not types:
            return None
        talk = Talk(len(self.client.usage.traces), self.client.usage.usd)
        try:
            action_type, why = self._type(turn, types, talk)
            action, reason = self._objects(turn, action_type, talk)
        except (LLMUnavailable, IllegalAction) as fault:
            return self._fall_back(turn, talk, str(fault))
        return Decision(action, "llm", reason or why, **self._record(talk), details={"llm": talk.calls})

    def _type(self, turn: Turn, types: Sequence[ActionType], talk: Talk) -> tuple[ActionType, str]:
        names = [t.name for t in types]
        talk.offered += [f"type: {name}" for name in names]

        def read(text: str) -> tuple[ActionType, str]:
            fields = replies.fields_of(text)
            value = _first(fields, "type", "action_type", "action", "number", "choice")
            if value is None:
                value = replies.only_number(text) if not fields else None
            if value is None:
                raise IllegalAction('the answer is no JSON object with the key "type"')
            return types[replies.choose(names, value)], _reason(fields)

        messages = prompting.type_messages(turn, self.settings)
        offered = "The types are: " + ", ".join(f"{i}. {one_line(name)}" for i, name in enumerate(names, 1))
        ask = _Ask("type", messages, forms.type_schema(len(names)), offered, forms.TYPE_FORM)
        return self._converse(ask, read, talk)

    def _objects(self, turn: Turn, action_type: ActionType, talk: Talk) -> tuple[Action, str]:
        options = turn.space.options(action_type)
        lists = {s.name: _numbered(options[s.name], turn, self.settings) for s in action_type.slots}
        counts = {name: min(len(things), self.settings.max_options) for name, things in lists.items()}
        talk.offered += [f"{slot}: {thing.name}" for slot, things in lists.items() for thing in things[: counts[slot]]]

        def read(text: str) -> tuple[Action, str]:
            fields = replies.fields_of(text)
            if not fields:
                raise IllegalAction("the answer holds no complete JSON object")
            objects = {s.name: _pick(s, lists[s.name], counts[s.name], fields) for s in action_type.slots}
            values = {key: _value(key, allowed, fields) for key, allowed in forms.open_grid(action_type).items()}
            return turn.space.make(action_type.name, objects, values), _reason(fields)

        messages = prompting.object_messages(turn, action_type, self.settings)
        schema = forms.object_schema(action_type, counts)
        offered = "The numbered lists and values above are all that there is to choose from."
        return self._converse(_Ask("objects", messages, schema, offered, forms.object_form(action_type)), read, talk)

    def _converse(self, ask: "_Ask", read: Callable[[str], T], talk: Talk) -> T:
        """Ask until `read` takes the answer, telling each time what was wrong; raises its last fault."""
        messages = list(ask.messages)
        for left in range(self.settings.corrections, -1, -1):
            reply = self.client.ask(messages, ask.schema)
            said = one_line(reply, 2000)
            talk.calls.append({"call": ask.name, "reply": said})
            try:
                return read(reply)
            except IllegalAction as fault:
                talk.calls[-1]["fault"] = one_line(fault, 500)
                if left == 0:
                    raise
            correction = prompting.filled(
                "correction", fault=talk.calls[-1]["fault"], offered=ask.offered, form=ask.form
            )
            messages = [*ask.messages, _message("assistant", said or "(empty)"), _message("user", correction)]
        raise AssertionError("unreachable: the last round returns or raises")

    def _fall_back(self, turn: Turn, talk: Talk, fault: str) -> Decision | None:
        decision = self.fallback(turn)
        if decision is None:
            return None
        note = one_line(f"the LLM gave no usable choice ({fault})", 400)
        return dataclasses.replace(
            decision,
            reason=f"{decision.reason} [fallback: {note}]",
            details={**decision.details, "llm": talk.calls, "fallback": note},
            **self._record(talk, decision.offered),
        )

    def _record(self, talk: Talk, offered: Sequence[str] = ()) -> dict[str, Any]:
        cut = tuple(one_line(line) for line in (offered or talk.offered)[:100])
        traces = tuple(self.client.usage.traces[talk.traces_before :])
        usd = self.client.usage.usd - talk.usd_before
        version = prompting.prompt_version()
        return {"prompt_version": version, "offered": cut, "traces": traces, "cost_usd": usd}


@dataclass(frozen=True)
class _Ask:
    """One of the two questions."""

    name: str
    messages: list[Message]
    schema: dict[str, Any]
    offered: str
    form: str


def _numbered(options: Sequence[Any], turn: Turn, settings: LLMSettings) -> list[Any]:
    """All options: first those with a number, as the prompt lists them, then those that only have a name."""
    listed = prompting.shown(options, turn.history, settings.max_options)
    seen = {thing.fingerprint for thing in listed}
    return listed + [thing for thing in options if thing.fingerprint not in seen]


def _pick(slot: Slot, things: Sequence[Any], offered: int, fields: Mapping[str, Any]) -> list[Any]:
    names = [thing.name for thing in things]
    value = fields.get(slot.name.lower())
    if value is None:
        raise IllegalAction(f'the key "{slot.name}" is missing')
    try:
        if slot.maximum > 1:
            return [things[i] for i in replies.choose_several(names, value, offered)]
        return [things[replies.choose(names, value, offered)]]
    except IllegalAction as fault:
        raise IllegalAction(f"{slot.name}: {fault}") from None


def _value(key: str, allowed: Sequence[Scalar], fields: Mapping[str, Any]) -> Scalar:
    if key.lower() not in fields:
        raise IllegalAction(f'the key "{key}" is missing')
    try:
        return replies.choose_value(allowed, fields[key.lower()])
    except IllegalAction as fault:
        raise IllegalAction(f"{key}: {fault}") from None


def _first(fields: Mapping[str, Any], *keys: str) -> Any:
    return next((fields[key] for key in keys if fields.get(key) is not None), None)


def _reason(fields: Mapping[str, Any]) -> str:
    return one_line(fields.get("reason") or "", 500)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
