"""Do pipelines rank at another scale as they did? The paper's scaling analysis in a few figures."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lamdagent.evaluation.task import Score

SURVIVES = 0.05
"""Gaps between pipelines that survived a change of the model's size in the paper (section 5): 5 points of 100."""


@dataclass(frozen=True)
class Agreement:
    """How two scores of the same pipelines agree."""

    pipelines: int
    """With both scores."""
    spearman: float | None
    """Rank correlation, ties at their mean rank; None for fewer than three, or where all scores are equal."""
    top1_retained: bool
    """Whether the best then is (one of) the best now."""
    top_overlap: float
    """Share of the best `top` then that are among the best `top` now."""
    regret: float
    """What is lost by taking the best then: the best score now less its score now."""
    gap: float
    """The best score then less the next one."""
    noise: float
    """Standard error of the best score then."""

    @property
    def record(self) -> dict[str, float | bool | None]:
        """As plain values."""
        return asdict(self)


def agreement(pairs: Sequence[tuple[Score, Score]], top: int) -> Agreement:
    """Compare (then, now) of pipelines, two or more; `top`: see `Agreement.top_overlap`."""
    then, now = [pair[0].value for pair in pairs], [pair[1].value for pair in pairs]
    ranked = sorted(range(len(pairs)), key=lambda index: -then[index])
    best_now = sorted(range(len(pairs)), key=lambda index: -now[index])
    first, some = ranked[0], min(top, len(pairs))
    return Agreement(
        pipelines=len(pairs),
        spearman=_spearman(then, now),
        top1_retained=now[first] >= max(now),
        top_overlap=len({*ranked[:some]} & {*best_now[:some]}) / some,
        regret=max(now) - now[first],
        gap=then[first] - then[ranked[1]],
        noise=pairs[first][0].stderr,
    )


def _spearman(then: Sequence[float], now: Sequence[float]) -> float | None:
    if len(then) < 3 or len({*then}) == 1 or len({*now}) == 1:
        return None
    from scipy.stats import spearmanr

    value = float(spearmanr(then, now).statistic)
    return value if math.isfinite(value) else None
