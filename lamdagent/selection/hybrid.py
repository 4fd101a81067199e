"""The surrogate proposes, the LLM disposes: optimizer state shown to an LLM (https://arxiv.org/abs/2603.24647).

The LLM picks from the surrogate's shortlist or overrules it with an action of its own. A bad LLM does little harm, one
or two trials (docs/policies.md): what is listed is promising, and an action of its own has to have a chance as well.
"""

import dataclasses
from collections.abc import Sequence

from lamdagent.errors import IllegalAction, LLMUnavailable
from lamdagent.llm.conversation import Conversation, Query
from lamdagent.llm.templates import LLMSettings
from lamdagent.llm.types import LLM
from lamdagent.selection import parsing, prompts, schemas
from lamdagent.selection.llm import LLMPolicy, fall_back, reason_of
from lamdagent.selection.policy import Decision, Turn
from lamdagent.selection.surrogate import Prediction, SurrogatePolicy, predict
from lamdagent.text import one_line

SHORTLIST = 5
"""Most actions on the shortlist."""
WORTH = 0.5
"""Least share of the first one's acquisition that an action on the shortlist has."""


class HybridPolicy:
    """Asks the LLM about the surrogate's shortlist; lets the surrogate decide when the LLM is silent or unusable."""

    def __init__(self, client: LLM, surrogate: SurrogatePolicy, settings: LLMSettings | None = None) -> None:
        """`settings` are those of `LLMPolicy`, which asks for an action of the LLM's own."""
        self.client = client
        self.surrogate = surrogate
        self.settings = settings or LLMSettings()
        self._free = LLMPolicy(client, surrogate, self.settings)

    def __call__(self, turn: Turn) -> Decision | None:
        """See `Policy`. `details` tells the LLM's choice (`rank` on the list, 0 = its own) and what it said."""
        ranking, _ = self.surrogate.ranking(turn)
        listed = shortlist(ranking)
        if not listed:
            return None
        conversation = Conversation(self.client, self.settings.corrections, offered=[p.describe() for p in listed])
        try:
            number, reason = self._pick(turn, listed, conversation)
            if number == 0:
                return self._overrule(turn, listed, conversation, reason)
        except (LLMUnavailable, IllegalAction) as fault:
            return fall_back(self.surrogate(turn), conversation, str(fault))
        picked = listed[number - 1]
        reason = f"{reason or 'no reason given'} [{_figures(picked)}, number {number} of {len(listed)}]"
        return Decision(
            picked.action,
            "hybrid",
            reason,
            **conversation.record(),
            details={"rank": number, "llm": conversation.calls},
        )

    def _pick(self, turn: Turn, listed: Sequence[Prediction], conversation: Conversation) -> tuple[int, str]:
        def read(text: str) -> tuple[int, str]:
            fields = parsing.fields_of(text)
            value = next((fields[key] for key in ("choice", "number", "action") if fields.get(key) is not None), None)
            value = parsing.only_number(text) if value is None and not fields else value
            if value is None:
                raise IllegalAction('the answer is no JSON object with the key "choice"')
            return (0 if str(value).strip() == "0" else 1 + parsing.choose(names, value)), reason_of(fields)

        names = [p.action.describe() for p in listed]
        lines = [f"{i}. {one_line(p.describe(), 400)}" for i, p in enumerate(listed, 1)]
        messages, _ = prompts.fitted(
            lambda s: prompts.shortlist_messages(turn, lines, s), self.settings, self.client.count
        )
        offered = f"The numbers are 1 to {len(listed)}, or 0 for none of these."
        return conversation.ask(
            Query("shortlist", messages, schemas.choice_schema(len(listed)), offered, schemas.CHOICE_FORM), read
        )

    def _overrule(self, turn: Turn, listed: Sequence[Prediction], conversation: Conversation, reason: str) -> Decision:
        """The LLM's own action, unless the surrogate is sure that it is worse than everything on the list."""
        action, why = self._free.choose(turn, conversation)
        own = predict(turn, [action])[0]
        if _ucb(own) >= min(map(_ucb, listed)):
            text = f"{why or reason or 'no reason given'} [overruled the shortlist; {_figures(own)}]"
            return Decision(
                action, "hybrid", text, **conversation.record(), details={"rank": 0, "llm": conversation.calls}
            )
        first = listed[0]
        note = f"the LLM wanted {one_line(action.describe(), 300)}, but the surrogate is sure that it is worse"
        decision = Decision(
            first.action, "hybrid", f"{_figures(first)} [{note}: {_figures(own)}]", **conversation.record()
        )
        return dataclasses.replace(
            decision, details={"rank": 1, "vetoed": action.describe(), "llm": conversation.calls}
        )


def shortlist(ranking: Sequence[Prediction]) -> list[Prediction]:
    """The first few of a ranking, as long as they are nearly as promising as the first."""
    return [p for p in ranking[:SHORTLIST] if p.acquisition >= WORTH * ranking[0].acquisition]


def _ucb(prediction: Prediction) -> float:
    """A score that the action may well reach."""
    return (1 - prediction.failure) * (prediction.mean + prediction.std)


def _figures(prediction: Prediction) -> str:
    return f"expected {prediction.mean:.3f} +- {prediction.std:.3f}"
