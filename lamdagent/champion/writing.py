"""What the end of a search writes to the finalists' runs: standings, gains, and scores with other seeds."""

import json
from collections.abc import Mapping, Sequence

from lamdagent.champion.promotion import Standing
from lamdagent.champion.seed_repeats import Spread
from lamdagent.evaluation.gain import Gain
from lamdagent.memory.trial import History, Trial
from lamdagent.tracking import schema
from lamdagent.tracking.store import RunStore


def write_promotion(
    store: RunStore,
    search_run_id: str,
    standings: Sequence[Standing],
    tests: Mapping[str, Gain],
    base: Trial,
    history: History,
) -> None:
    """Write finalists' standings and gains (`tests`: run id -> gain on the test split), and the champion's run."""
    for standing in standings:
        run_id, test = standing.trial.run_id, tests.get(standing.trial.run_id)
        pairing = {"search": standing.gain.pairing} | ({"test": test.pairing} if test else {})
        tags = {schema.STATE: standing.state, schema.STATE_REASON: standing.why, schema.PAIRING: json.dumps(pairing)}
        metrics = gain_metrics(standing.gain, "") | (gain_metrics(test, schema.TEST_PREFIX) if test else {})
        store.update(run_id, tags=tags, metrics=metrics)
    selected = next((s.trial.run_id for s in standings if s.state == "selected"), "")
    for trial in history.trials:
        if trial.state == "selected" and trial.run_id not in {s.trial.run_id for s in standings}:
            why = "a later search has promoted another one, or none"
            store.update(trial.run_id, tags={schema.STATE: "eligible", schema.STATE_REASON: why})
    store.update(search_run_id, tags={schema.CHAMPION: selected or base.run_id})


def write_seed_scores(store: RunStore, spread: Spread) -> None:
    """Write what a finalist's pipeline scores with other seeds."""
    if spread.scores:
        metrics = {schema.SEEDS_MEAN: spread.mean, schema.SEEDS_COUNT: float(len(spread.scores))}
        metrics |= {schema.SEEDS_DEVIATION: spread.deviation} if len(spread.scores) > 1 else {}
        store.update(spread.trial.run_id, metrics=metrics)


def gain_metrics(gain: Gain, prefix: str) -> dict[str, float]:
    """Metrics of a gain with its standard error and its 95 % confidence interval."""
    key = prefix + schema.GAIN
    ends = {key + schema.LOW_SUFFIX: gain.low, key + schema.HIGH_SUFFIX: gain.high}
    return {key: gain.value, key + schema.STDERR_SUFFIX: gain.stderr, **ends}
