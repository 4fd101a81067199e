"""Items of the letters tasks: which of the eight letters is the likeliest answer?"""

from functools import partial
from typing import Any

from lamdagent.letters import LETTERS, SKILLS, question, words


def _items(skill: str, **_: Any) -> Any:
    from datasets import Dataset, DatasetDict

    return DatasetDict(
        {
            split: Dataset.from_list(
                [
                    {"prompt": question(skill, w), "choices": list(LETTERS), "label": LETTERS.index(SKILLS[skill](w))}
                    for w in words(split, 100, skill)
                ]
            )
            for split in ("search", "test")
        }
    )


first, last, second, top, low = (partial(_items, skill) for skill in ("first", "last", "second", "top", "low"))
