"""Which training rows hold evaluation items: the question as a text or line of its own, or 13 of its words in a row.

After GPT-3's check (https://arxiv.org/abs/2005.14165, appendix C): words are lower-cased and without punctuation, 13 in
a row tell a text, and what many items share is the benchmark's template and tells nothing.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

LENGTH = 13
"""Words in a row that two texts do not share by chance."""
BLOCK = (LENGTH + 1) // 2
"""Any LENGTH words in a row hold so many that start at a multiple of it: only those are looked up at first."""
SHORTEST = 3
"""Questions of fewer words may be equal by chance."""
COMMON = 10
"""A block of words that more items than this share is of the template."""
LABEL = 20
"""Most letters of what may stand before a question on its line, such as `Question:`."""
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""A word; where a language has no blanks, each letter is one."""
T = TypeVar("T")


@dataclass(frozen=True)
class Overlap:
    """A training row with an evaluation item, or a part of it, in it; numbers count from 0."""

    row: int
    item: int
    """The first one that was found; a row with several is told once."""
    exact: bool
    """The question is a text or line of the row; else LENGTH words of it are in the row."""


class Questions:
    """Evaluation items, ready to be found in texts."""

    def __init__(self, questions: Sequence[str], common: float = COMMON, shortest: int = SHORTEST) -> None:
        """Blocks of words that more than `common` of the `questions` share tell nothing, unless in a whole question.

        Questions of fewer than `shortest` words are not looked for.
        """
        self._whole: dict[str, int] = {}
        self._runs: dict[str, int] = {}
        every = [words(question) for question in questions]
        distinct = {" ".join(found): found for found in every}.values()
        counts = Counter(block for found in distinct for block in set(_pieces(found, BLOCK)))
        template = {block for block, count in counts.items() if count > common}
        for number, found in enumerate(every):
            if len(found) >= shortest:
                self._whole.setdefault(" ".join(found), number)
            for own in _without_template(found, template):
                for run in _pieces(own, LENGTH):
                    self._runs.setdefault(run, number)
        self._blocks = {block for run in self._runs for block in _pieces(run.split(), BLOCK)}

    def overlaps(self, rows: Iterable[Sequence[str]]) -> Iterator[Overlap]:
        """The rows (each a list of texts) in which a question is found."""
        for number, texts in enumerate(rows):
            found = next((one for text in texts if (one := self._find(text))), None)
            if found:
                yield Overlap(number, *found)

    def _find(self, text: str) -> tuple[int, bool] | None:
        """The item in `text`, and whether it is the whole question."""
        lines = [(line, words(line)) for line in text.splitlines()]
        every = [word for _, found in lines for word in found]
        for alone in [every, *(part for line, found in lines for part in _alone(line, found))]:
            if (item := self._whole.get(" ".join(alone))) is not None:
                return item, True
        for at in range(0, len(every) - BLOCK + 1, BLOCK):
            if " ".join(every[at : at + BLOCK]) in self._blocks:
                for run in _pieces(every[max(0, at - LENGTH + BLOCK) : at + LENGTH], LENGTH):
                    if run in self._runs:
                        return self._runs[run], False
        return None


def without(rows: Sequence[T], texts: Iterable[Sequence[str]], questions: Sequence[str]) -> list[T]:
    """`rows`, whose texts are `texts`, less those with any of `questions` in them, by template or chance too."""
    leaking = {overlap.row for overlap in Questions(questions, math.inf, 1).overlaps(texts)}
    return [row for number, row in enumerate(rows) if number not in leaking]


def words(text: str) -> list[str]:
    """Lower-cased, without punctuation, equal letters in one form."""
    return WORD.findall(unicodedata.normalize("NFKC", text).lower())


def _pieces(found: Sequence[str], length: int) -> Iterator[str]:
    return (" ".join(found[at : at + length]) for at in range(len(found) - length + 1))


def _without_template(found: Sequence[str], template: Set[str]) -> Iterator[list[str]]:
    """The stretches of a question that no block of the template covers."""
    covered = [False] * len(found)
    for at, block in enumerate(_pieces(found, BLOCK)):
        if block in template:
            covered[at : at + BLOCK] = [True] * BLOCK
    for hidden, stretch in groupby(zip(covered, found, strict=True), key=lambda pair: pair[0]):
        if not hidden:
            yield [word for _, word in stretch]


def _alone(line: str, found: list[str]) -> Iterator[list[str]]:
    """The words of a line, and those behind its label."""
    yield found
    label, colon, _ = line[: LABEL + 1].partition(":")
    if colon:
        yield found[len(words(label)) :]
