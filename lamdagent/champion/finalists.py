"""The end of a search: the finalists' gains over the base, who is promoted, and what is written of it."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

from lamdagent.champion.promotion import Standing, promoted
from lamdagent.champion.writing import write_promotion
from lamdagent.evaluation.gain import Gain, Items, gain_over
from lamdagent.evaluation.task import Score, Split
from lamdagent.loop.run_writer import RunWriter
from lamdagent.memory.scores import fraction_of
from lamdagent.memory.trial import POLICY, History, Trial
from lamdagent.planning.plan import Plan
from lamdagent.tracking import schema
from lamdagent.tracking.runs import RunRecord
from lamdagent.tracking.samples import items_of


def finalists(history: History, most: int) -> list[Trial]:
    """The best actions on the search split that have their weights, best first; none that repeats an earlier one."""
    actions = [trial for trial in history.scored if trial.kind == "action" and trial.policy != POLICY]
    return [trial for trial in actions if not trial.pruned][:most]


def promote(best: Sequence[Trial], history: History, journal: RunWriter, plan: Plan) -> list[Standing]:
    """The standings of finalists, written to the store with their gains on both splits; none without a base's score."""
    base = history.base()
    if base is None:
        return []
    gains = _gains(best, history, journal, plan, "search")
    standings = promoted([(trial, gains[trial.run_id]) for trial in best], plan.config.champion.beyond)
    tests = _gains(best, history, journal, plan, "test")
    write_promotion(journal.store, journal.session.run_id, standings, tests, base, history)
    return standings


def champion_of(standings: Sequence[Standing], history: History, real: Callable[[str], str]) -> Trial | None:
    """The selected finalist, else the best base; None where nothing has a score.

    `real`: a finalist's run -> its id in the store, which may have given it one since.
    """
    selected = next((s.trial.run_id for s in standings if s.state == "selected"), None)
    return history.by_run[real(selected)] if selected else history.base()


def champion_of_more_data(records: Sequence[RunRecord], scope: float | None) -> str:
    """The run that another search has promoted at a larger data fraction; a pilot never takes its place."""
    larger = (r for r in records if scope is not None and fraction_of(r) > scope)
    return next((record.run_id for record in larger if record.tags.get(schema.STATE) == "selected"), "")


def _gains(
    trials: Sequence[Trial], history: History, journal: RunWriter, plan: Plan, split: Split
) -> Mapping[str, Gain]:
    """Run id -> gain over the best base on the split, of those that both have scores there."""
    base, found = history.base(), dict[str, Gain]()
    if base is None or not trials:
        return found
    base_items = _items(journal, base, history, plan, split)
    for trial in trials:
        items = _items(journal, trial, history, plan, split)
        gain = gain_over(plan.tasks, _scores(trial, split), _scores(base, split), items, base_items)
        if gain is not None:
            found[trial.run_id] = gain
    return found


def _scores(trial: Trial, split: Split) -> Mapping[str, Score]:
    return trial.scores if split == "search" else trial.test_scores


def _items(journal: RunWriter, trial: Trial, history: History, plan: Plan, split: Split) -> Items:
    """Of every run that has measured the model; without those that cannot be read: they are unpaired then."""
    store, found = journal.store, dict[str, Mapping[str, float]]()
    own = trial.model.fingerprint if trial.model else ""
    measured = [t for t in history.trials if t.model and t.model.fingerprint == own]
    for run_id in filter(None, (run_id for t in measured for run_id in (t.reused, t.run_id))):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found |= items_of(store, run_id, split, plan.tasks)
    return found
