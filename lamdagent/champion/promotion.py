"""Who may be the champion: evaluated -> eligible -> selected, by the search split alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lamdagent.evaluation.gain import Gain
from lamdagent.memory.trial import Trial

State = Literal["evaluated", "eligible", "selected"]
"""`evaluated`: scored, not beyond the noise; `eligible`: its gain is; `selected`: the best of those, the champion."""


@dataclass(frozen=True)
class Standing:
    """How far a finalist has come."""

    trial: Trial
    gain: Gain
    """Over the best base, on the search split."""
    state: State
    why: str
    """For a person; says nothing of the test split, which no later search may learn from."""


def promoted(finalists: Sequence[tuple[Trial, Gain]], beyond: float) -> list[Standing]:
    """The finalists' standings, in their order (best first); `beyond`: standard errors that a gain must exceed."""
    standings: list[Standing] = []
    selected = False
    for trial, gain in finalists:
        said = f"gain {gain} on the search split ({gain.pairing}, standard error {gain.stderr:.3f})"
        if gain.value <= beyond * gain.stderr:
            errors = f"{beyond:g} standard error{'s' * (beyond != 1)}"
            bar = f"not beyond {errors}" if beyond else "no gain"
            standings.append(Standing(trial, gain, "evaluated", f"{said}: {bar}"))
        elif selected:
            standings.append(Standing(trial, gain, "eligible", f"{said}: beyond the noise, but another one is better"))
        else:
            selected = True
            standings.append(Standing(trial, gain, "selected", f"{said}: the best of those beyond the noise"))
    return standings
