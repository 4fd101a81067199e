"""Expected times, as functions of the history and the ledger: the next action, the final test, the rest of a phase."""

import math

from lamdagent.loop.ledger import Ledger
from lamdagent.loop.limits import Limits
from lamdagent.memory.trial import History
from lamdagent.planning.plan import Plan

LAST = 5
"""The number of newest actions that say how long the next one takes."""


def typical_s(history: History) -> float:
    """Seconds of the longest of the last few actions: a budget should rather end early than late."""
    ended = [t for t in history.actions if t.status != "running"]
    return max([t.seconds for t in ended[-LAST:] if t.status == "finished"], default=0.0)


def reserve_s(history: History, plan: Plan, capacity: int) -> float:
    """Seconds of the final test: the evaluation of a base, scaled to the test split, for each round of jobs.

    `capacity`: the number of jobs that run at once.
    """
    bases = [t.seconds for t in history.trials if t.kind == "base" and t.seconds > 0]
    sizes = [(t.limits.get("search"), t.limits.get("test")) for t in plan.tasks]
    scale = max([test / search for search, test in sizes if search and test], default=1.0)
    rounds = math.ceil((plan.config.search.test_top + len(plan.config.models)) / capacity)
    return rounds * max(bases, default=0.0) * scale


def eta(history: History, ledger: Ledger, limits: Limits, reserve_s: float, capacity: int) -> str | None:
    """The time that the search still takes, in words; None where it cannot be estimated."""
    trials, typical = limits.budget.trials, typical_s(history)
    by_trials = (trials - ledger.trials + 1) * typical / capacity if trials and typical else math.inf
    left = min(by_trials + reserve_s, limits.left_s(ledger))
    if not 0 < left < math.inf:
        return None
    return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"
