"""Short writing tasks with one constraint that a program can check: the families of IFEval (https://arxiv.org/abs/2311.07911).

Prompts, wording and checkers are ours. A stand-in, without a network or a judge, for "general ability is kept".
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import get_args

from lamdagent.tooluse.bfcl import SALT, ItemSplit

TOPICS = " ".join(
    """
    a bakery, a bicycle, a birthday, a bridge, a camera, a cat, a chess game, a city park, a cup of tea, a desert, a
    doctor, a dog, a farm, a football match, a forest, a garden, a guitar, a holiday, a hospital, a job interview, a
    kitchen, a lake, a lamp, a letter, a library, a lighthouse, a market, a mountain, a museum, a neighbour, a new
    phone, a night train, a painting, a pair of shoes, a picnic, a pilot, a planet, a rainy day, a recipe, a river,
    a robot, a school, a ship, a snowman, a song, a storm, a summer evening, a teacher, a theatre, a tree, a
    village, a volcano, a wedding, a window, an airport, an apple, an elephant, an island, an old car, breakfast,
    coffee, rain, sleep, the moon
    """.split()
).split(", ")
WORDS = ("always", "blue", "clear", "friend", "golden", "morning", "quiet", "simple", "small", "warm")


@dataclass(frozen=True)
class Writing:
    """One prompt with the constraint that its reply has to meet."""

    id: str
    family: str
    topic: str
    word: str
    """A keyword for the families that need one."""
    number: int
    """A count for the families that need one."""

    @property
    def prompt(self) -> str:
        """The prompt that asks the model to keep the constraint."""
        return FAMILIES[self.family][0].format(topic=self.topic, word=self.word, number=self.number)

    @property
    def split(self) -> ItemSplit:
        """By a hash of the topic, 60/20/20: no split knows another one's topics."""
        bucket = _digest(f"topic {SALT} {self.topic}") % 5
        return "search" if bucket == 3 else "test" if bucket == 4 else "train"

    def followed(self, reply: str) -> bool:
        """True when `reply` meets the constraint; an empty reply never does."""
        return bool(reply.strip()) and FAMILIES[self.family][1](self, reply.strip())


def _lines(reply: str) -> list[str]:
    return [line.strip() for line in reply.splitlines() if line.strip()]


def _words(reply: str) -> list[str]:
    return re.findall(r"[\w']+", reply)


FAMILIES: dict[str, tuple[str, Callable[[Writing, str], bool]]] = {
    "lower_case": (
        "Write one sentence about {topic}. Use only lower case letters, no capital letters at all.",
        lambda task, reply: reply == reply.lower() and reply != reply.upper(),
    ),
    "upper_case": (
        "Write one sentence about {topic}. Use only capital letters.",
        lambda task, reply: reply == reply.upper() and reply != reply.lower(),
    ),
    "no_commas": (
        "Describe {topic} in two sentences. Do not use any commas.",
        lambda task, reply: "," not in reply and len(_words(reply)) >= 5,
    ),
    "bullets": (
        'Name exactly {number} things that belong to {topic}. Put each on a line of its own that starts with "- ".',
        lambda task, reply: [line[:2] for line in _lines(reply)] == ["- "] * task.number,
    ),
    "keyword": (
        'Write one sentence about {topic} that contains the word "{word}".',
        lambda task, reply: task.word in [word.lower() for word in _words(reply)],
    ),
    "ends_with": (
        'Write one sentence about {topic}. Then end your reply with these exact words: "That is {word}."',
        lambda task, reply: reply.endswith(f"That is {task.word}."),
    ),
    "starts_with": (
        'Write one sentence about {topic}. Its first word has to be "{word}".',
        lambda task, reply: [word.lower() for word in _words(reply)][:1] == [task.word],
    ),
    "few_words": (
        "Describe {topic} in at most {number} words.",
        lambda task, reply: 0 < len(_words(reply)) <= task.number,
    ),
    "quoted": (
        "Write one sentence about {topic} and put your whole reply in double quotation marks.",
        lambda task, reply: len(reply) > 2 and reply.startswith('"') and reply.endswith('"'),
    ),
    "question": (
        "Write one question about {topic}. Your reply has to end with a question mark.",
        lambda task, reply: reply.endswith("?"),
    ),
}
"""Family -> prompt template and checker."""


@cache
def writings(split: ItemSplit) -> tuple[Writing, ...]:
    """Every family with every topic of the split, the families taking turns; always the same."""
    found = [_writing(family, topic) for family in FAMILIES for topic in TOPICS]
    chosen = sorted((task for task in found if task.split == split), key=lambda task: _digest(task.id))
    position = {task.id: rank for family in FAMILIES for rank, task in enumerate(_of(chosen, family))}
    return tuple(sorted(chosen, key=lambda task: position[task.id]))


@cache
def by_id() -> dict[str, Writing]:
    """Every writing task of all splits."""
    return {task.id: task for split in get_args(ItemSplit) for task in writings(split)}


def _of(tasks: list[Writing], family: str) -> list[Writing]:
    return [task for task in tasks if task.family == family]


def _writing(family: str, topic: str) -> Writing:
    name = f"{family}: {topic}"
    digest = _digest(name)
    return Writing(name, family, topic, WORDS[digest % len(WORDS)], _number(family, digest // len(WORDS)))


def _number(family: str, digest: int) -> int:
    return 10 + digest % 11 if family == "few_words" else 2 + digest % 3


def _digest(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)
