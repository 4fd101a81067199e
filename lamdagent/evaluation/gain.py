"""How much better than the base, and how sure: the two were asked the same items, so their errors largely cancel out.

Paired differences: Miller, Adding Error Bars to Evals, 2024, section 4.2 (https://arxiv.org/abs/2411.00640).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, get_args

from lamdagent.evaluation.task import Score, Task, weighted_score

Pairing = Literal["paired", "partly paired", "unpaired"]
"""`paired`: every weighted task was compared item by item; `unpaired`: none, the two scores taken as independent."""
Items = Mapping[str, Mapping[str, float]]
"""Task name -> item id -> score on the task's own scale."""
NORMAL_95 = 1.959964
"""Standard errors to each side of a 95 % interval of the normal distribution; too short for a few dozen items."""


@dataclass(frozen=True)
class Gain:
    """A weighted score less the base's."""

    value: float
    stderr: float
    pairing: Pairing = "unpaired"

    @property
    def low(self) -> float:
        """Lower end of the 95 % confidence interval."""
        return self.value - NORMAL_95 * self.stderr

    @property
    def high(self) -> float:
        """Upper end of the 95 % confidence interval."""
        return self.value + NORMAL_95 * self.stderr

    def __str__(self) -> str:
        """`+0.104 [+0.026, +0.182]`."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def gain_over(
    tasks: Sequence[Task],
    ours: Mapping[str, Score],
    base: Mapping[str, Score],
    our_items: Items | None = None,
    base_items: Items | None = None,
) -> Gain | None:
    """The gain of weighted scores, its error over the items where those of both are at hand; None without scores."""
    score, reference = weighted_score(tasks, ours), weighted_score(tasks, base)
    if score is None or reference is None:
        return None
    weighed = [task for task in tasks if task.weight > 0]
    total = sum(task.weight for task in weighed)
    variance, paired = 0.0, 0
    for task in weighed:
        error = _paired_error(task, ours, base, our_items or {}, base_items or {})
        paired += error is not None
        if error is None:
            error = math.hypot(*(task.normalize(scores[task.name]).stderr for scores in (ours, base)))
        variance += (task.weight / total * error) ** 2
    pairings: Sequence[Pairing] = get_args(Pairing)
    pairing = pairings[0] if paired == len(weighed) else pairings[1] if paired else pairings[2]
    return Gain(score.value - reference.value, math.sqrt(variance), pairing)


def difference(stored: Gain | None, ours: Score | None, base: Score | None) -> Gain | None:
    """The gain as it was stored if it is that of these two weighted scores, else with both taken as independent."""
    if ours is None or base is None:
        return None
    value = ours.value - base.value
    if stored is not None and math.isclose(stored.value, value, abs_tol=1e-9):
        return stored
    return Gain(value, math.hypot(ours.stderr, base.stderr))


def _paired_error(
    task: Task, ours: Mapping[str, Score], base: Mapping[str, Score], our_items: Items, base_items: Items
) -> float | None:
    """Normalized standard error of the mean difference; None if items are missing or the score is no mean."""
    one, other = our_items.get(task.name, {}), base_items.get(task.name, {})
    if len(one) < 2 or one.keys() != other.keys():
        return None
    for items, scores in ((one, ours), (other, base)):
        if not math.isclose(fmean(items.values()), scores[task.name].value, abs_tol=1e-6):
            return None
    return stdev(one[item] - other[item] for item in one) / math.sqrt(len(one)) / abs(task.high - task.low)
