r"""GSM8K (https://arxiv.org/abs/2110.14168): school mathematics in words, MIT licence.

{"question": "Natalia sold clips to 48 of her friends in April, and ...",
 "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold ... altogether in April and May.\n#### 72"}
"""

import re
from decimal import Decimal

from lamdagent.skills.hub import Row
from lamdagent.skills.skill import Skill

MARK = "####"
NUMBER = re.compile(r"(?<!\d)-?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


def ask(row: Row) -> str:
    """The question in lm-eval's form."""
    return f"Question: {row['question'].strip()}\nAnswer:"


def reply(row: Row) -> str:
    """The worked answer, without the marks that were meant for a calculator."""
    return re.sub(r"<<.*?>>", "", row["answer"]).strip()


def number(text: str) -> Decimal | None:
    """The first number after the first `####`; without that mark the last number; None where there is none."""
    _, mark, after = text.partition(MARK)
    found = NUMBER.findall(after if mark else text)
    if not found:
        return None
    return Decimal(re.sub(r"[,$]", "", found[0] if mark else found[-1]))


SKILL = Skill("openai/gsm8k", "main", "test", ("question", "answer"), ask, reply)
