"""The agreement of the rankings of pipelines at two scales: the scaling analysis of the paper (section 5)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lamdagent.evaluation.task import Score

SURVIVES = 0.05
"""The gap between pipelines that survived a change of the model's size in the paper: 5 points of 100."""


@dataclass(frozen=True)
class RankAgreement:
    """The agreement of two scores of the same pipelines."""

    pipelines: int
    """The number of pipelines with both scores."""
    spearman: float | None
    """Rank correlation, ties at their mean rank; None for fewer than three pipelines or equal scores."""
    top1_retained: bool
    """Whether the best pipeline at the first scale is (one of) the best at the second."""
    top_overlap: float
    """Share of the best `top` at the first scale that are among the best `top` at the second."""
    regret: float
    """At the second scale: the best score minus the score of the pipeline that was best at the first."""
    gap: float
    """At the first scale: the best score minus the next one."""
    noise: float
    """Standard error of the best score at the first scale."""

    @property
    def record(self) -> dict[str, float | bool | None]:
        """The figures as plain values."""
        return asdict(self)


def rank_agreement(pairs: Sequence[tuple[Score, Score]], top: int) -> RankAgreement:
    """The agreement of two or more pairs (score at the first scale, score at the second)."""
    then, now = [pair[0].value for pair in pairs], [pair[1].value for pair in pairs]
    ranked = sorted(range(len(pairs)), key=lambda index: -then[index])
    best_now = sorted(range(len(pairs)), key=lambda index: -now[index])
    first, some = ranked[0], min(top, len(pairs))
    return RankAgreement(
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
