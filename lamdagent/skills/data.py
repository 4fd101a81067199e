"""Training sets of the three skills, as functions for `datasets: {name: {function: lamdagent.skills.data:gsm8k}}`.

`source` is a hub id or a local folder; `plain` gives text instead of messages, for models without a chat template.
"""

from collections.abc import Mapping

from lamdagent.skills import commonsense_qa as commonsense
from lamdagent.skills import gsm8k as mathematics
from lamdagent.skills import trivia_qa as trivia
from lamdagent.skills.hub import Rows
from lamdagent.skills.skill import training


def gsm8k(source: str = mathematics.SKILL.source, plain: bool = False) -> Rows:
    """About 7,500 worked answers."""
    return training(mathematics.SKILL, source, plain)


def commonsense_qa(source: str = commonsense.SKILL.source, plain: bool = False) -> Rows:
    """About 9,700 letters."""
    return training(commonsense.SKILL, source, plain)


def trivia_qa(source: str = trivia.SKILL.source, plain: bool = False) -> Rows:
    """About 138,000 short answers; cut them with `rows`."""
    return training(trivia.SKILL, source, plain)


def every_skill(each: int = 7000, plain: bool = False, sources: Mapping[str, str] | None = None) -> Rows:
    """Up to `each` first rows of every skill in turn: what the paper compares its pipelines with.

    `sources` may name other sources, such as `{gsm8k: folder}`.
    """
    skills = {"gsm8k": mathematics.SKILL, "commonsense_qa": commonsense.SKILL, "trivia_qa": trivia.SKILL}
    given = sources or {}
    parts = [training(skill, given.get(name, skill.source), plain)[:each] for name, skill in skills.items()]
    longest = max(map(len, parts))
    return [part[index] for index in range(longest) for part in parts if index < len(part)]
