"""Promotion of finalists: evaluated -> eligible -> selected, by the search split alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lamdagent.evaluation.gain import Gain
from lamdagent.memory.trial import Trial

State = Literal["evaluated", "eligible", "selected"]
"""`evaluated`: scored, gain within the noise. `eligible`: gain beyond it. `selected`: the best of these."""


@dataclass(frozen=True)
class PromotionResult:
    """The state of one finalist."""

    trial: Trial
    gain: Gain
    """The gain over the best base, on the search split."""
    state: State
    why: str
    """The reason, for a person; it says nothing of the test split, from which no later search may learn."""


def promotion_results(
    finalists: Sequence[tuple[Trial, Gain]], min_gain_in_stderr: float
) -> tuple[PromotionResult, ...]:
    """The state of every finalist, in their order (best first).

    `min_gain_in_stderr`: the number of standard errors that a gain must exceed (`champion.beyond`).
    """
    results: list[PromotionResult] = []
    selected = False
    for trial, gain in finalists:
        said = f"gain {gain} on the search split ({gain.pairing}, standard error {gain.stderr:.3f})"
        if gain.value <= min_gain_in_stderr * gain.stderr:
            results.append(PromotionResult(trial, gain, "evaluated", f"{said}: {_bar(min_gain_in_stderr)}"))
        elif selected:
            results.append(
                PromotionResult(trial, gain, "eligible", f"{said}: beyond the noise, but another one is better")
            )
        else:
            selected = True
            results.append(PromotionResult(trial, gain, "selected", f"{said}: the best of those beyond the noise"))
    return tuple(results)


def _bar(min_gain_in_stderr: float) -> str:
    errors = f"{min_gain_in_stderr:g} standard error{'s' * (min_gain_in_stderr != 1)}"
    return f"not beyond {errors}" if min_gain_in_stderr else "no gain"
