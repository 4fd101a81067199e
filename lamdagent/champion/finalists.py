"""The finalists of a search: their gains over the base on both splits, and which of them is the champion."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lamdagent.champion.promotion import PromotionResult, promotion_results
from lamdagent.evaluation.gain import Gain, Items, gain_over
from lamdagent.evaluation.task import Score, Split, Task
from lamdagent.memory.scores import fraction_of
from lamdagent.memory.trial import POLICY, History, Trial
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.samples import items_of
from lamdagent.tracking.store import RunStore


@dataclass(frozen=True)
class Promotion:
    """The outcome of a comparison with the base."""

    base: Trial
    results: tuple[PromotionResult, ...]
    """The finalists that have a gain on the search split, best first."""
    tests: Mapping[str, Gain]
    """Run id -> gain on the test split."""


def finalists(history: History, most: int) -> list[Trial]:
    """The best `most` actions on the search split that have their weights, best first, without seed repeats."""
    actions: list[Trial] = [trial for trial in history.pipelines if trial.policy != POLICY]
    return [trial for trial in actions if not trial.pruned][:most]


def promote(
    best: Sequence[Trial], history: History, store: RunStore, tasks: Sequence[Task], min_gain_in_stderr: float
) -> Promotion | None:
    """The promotion of the finalists `best`; None where no base has a score. Nothing is written."""
    base = history.base()
    if base is None:
        return None
    gains = _gains(best, base, history, store, tasks, "search")
    results = promotion_results([(trial, gains[trial.run_id]) for trial in best], min_gain_in_stderr)
    return Promotion(base, results, _gains(best, base, history, store, tasks, "test"))


def champion_of(results: Sequence[PromotionResult], history: History, real: Callable[[str], str]) -> Trial | None:
    """The selected finalist, else the best base; None where nothing has a score.

    `real`: run id of a finalist -> its id in the store, which may have assigned one since.
    """
    selected = next((result.trial.run_id for result in results if result.state == "selected"), None)
    return history.by_run[real(selected)] if selected else history.base()


def champion_of_more_data(records: Sequence[RunRecord], scope: float | None) -> str | None:
    """The run that another search has selected at a larger data fraction than `scope`; a pilot never replaces it."""
    larger = (r for r in records if scope is not None and fraction_of(r) > scope)
    return next((record.run_id for record in larger if record.tags.get(schema.STATE) == "selected"), None)


def _gains(
    trials: Sequence[Trial], base: Trial, history: History, store: RunStore, tasks: Sequence[Task], split: Split
) -> Mapping[str, Gain]:
    """Run id -> gain over the base on the split, for the trials where both have scores there."""
    found: dict[str, Gain] = {}
    base_items = _items(store, base, history, tasks, split) if trials else {}
    for trial in trials:
        items = _items(store, trial, history, tasks, split)
        gain = gain_over(tasks, _scores(trial, split), _scores(base, split), items, base_items)
        if gain is not None:
            found[trial.run_id] = gain
    return found


def _scores(trial: Trial, split: Split) -> Mapping[str, Score]:
    return trial.scores if split == "search" else trial.test_scores


def _items(store: RunStore, trial: Trial, history: History, tasks: Sequence[Task], split: Split) -> Items:
    """The item scores of every run that has measured the model.

    Runs whose items cannot be read are left out: their gain is computed unpaired.
    """
    found: dict[str, Mapping[str, float]] = {}
    own = trial.model.fingerprint if trial.model else ""
    measured = [t for t in history.trials if t.model and t.model.fingerprint == own]
    for run_id in filter(None, (run_id for t in measured for run_id in (t.reused, t.run_id))):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found |= items_of(store, run_id, split, tasks)
    return found
