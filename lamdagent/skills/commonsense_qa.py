"""CommonsenseQA (https://arxiv.org/abs/1811.00937): five choices, MIT licence. The official test answers are secret.

{"id": "075e...", "question": "The sanctions against the school were a punishing blow, and ...", "question_concept":
 "punishing", "choices": {"label": ["A", "B", "C", "D", "E"], "text": ["ignore", "enforce", ...]}, "answerKey": "A"}
"""

from lamdagent.skills.hub import Row
from lamdagent.skills.skill import Skill


def ask(row: Row) -> str:
    """The question with its choices in lm-eval's form."""
    choices = zip(row["choices"]["label"], row["choices"]["text"], strict=True)
    lines = [f"Question: {row['question'].strip()}", *(f"{label}. {text}" for label, text in choices), "Answer:"]
    return "\n".join(lines)


def reply(row: Row) -> str:
    """The letter of the right choice."""
    return str(row["answerKey"])


SKILL = Skill("tau/commonsense_qa", None, "validation", ("id", "question", "choices", "answerKey"), ask, reply)
