"""TriviaQA without context (https://arxiv.org/abs/1705.03551). The questions belong to their authors.

{"question": "Which American-born Sinclair won the Nobel Prize for Literature in 1930?", "question_id": "tc_1",
 "answer": {"aliases": ["(Harry) Sinclair Lewis", "Sinclair Lewis", ...], "normalized_aliases": ["sinclair lewis", ...],
            "value": "Sinclair Lewis", ...}}
"""

import re
import string
from collections.abc import Mapping
from typing import Any

from lamdagent.skills.hub import Row
from lamdagent.skills.skill import Skill

PUNCTUATION = str.maketrans({mark: " " for mark in string.punctuation + "‘’´`"})


def ask(row: Row) -> str:
    """The question in lm-eval's form."""
    return f"Question: {row['question'].strip()}\nAnswer:"


def reply(row: Row) -> str:
    """The answer itself, not its aliases."""
    return str(row["answer"]["value"]).strip()


def normalised(text: str) -> str:
    """As the benchmark does it: lower case, without punctuation, articles and spare blanks."""
    bare = text.lower().translate(PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def right(text: str, answer: Mapping[str, Any]) -> bool:
    """Is `text` one of the answer's names?"""
    names = {normalised(name) for name in [answer["value"], *answer["aliases"], *answer["normalized_aliases"]]}
    return normalised(text) in names - {""}


SKILL = Skill("mandarjoshi/trivia_qa", "rc.nocontext", "validation", ("question_id", "question", "answer"), ask, reply)
