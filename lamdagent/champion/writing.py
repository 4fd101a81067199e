"""Writing to the finalists' runs at the end of a search: standings, gains, and scores with other seeds."""

import json

from lamdagent.champion.finalists import Promotion
from lamdagent.champion.seed_repeats import SeedVariance
from lamdagent.evaluation.gain import Gain
from lamdagent.memory.trial import History
from lamdagent.tracking import schema
from lamdagent.tracking.store import RunStore


def write_promotion(store: RunStore, search_run_id: str, promotion: Promotion, history: History) -> None:
    """Write the finalists' states and gains to their runs, and the champion's run to the search run."""
    results = promotion.results
    for result in results:
        run_id, test = result.trial.run_id, promotion.tests.get(result.trial.run_id)
        pairing = {"search": result.gain.pairing} | ({"test": test.pairing} if test else {})
        tags = {schema.STATE: result.state, schema.STATE_REASON: result.why, schema.PAIRING: json.dumps(pairing)}
        metrics = gain_metrics(result.gain, "") | (gain_metrics(test, schema.TEST_PREFIX) if test else {})
        store.update(run_id, tags=tags, metrics=metrics)
    selected = next((s.trial.run_id for s in results if s.state == "selected"), "")
    for trial in history.trials:
        if trial.state == "selected" and trial.run_id not in {s.trial.run_id for s in results}:
            why = "a later search has promoted another one, or none"
            store.update(trial.run_id, tags={schema.STATE: "eligible", schema.STATE_REASON: why})
    store.update(search_run_id, tags={schema.CHAMPION: selected or promotion.base.run_id})


def write_seed_scores(store: RunStore, variance: SeedVariance) -> None:
    """Write what a finalist's pipeline scores with other seeds."""
    if variance.scores:
        metrics = {schema.SEEDS_MEAN: variance.mean, schema.SEEDS_COUNT: float(len(variance.scores))}
        metrics |= {schema.SEEDS_DEVIATION: variance.deviation} if len(variance.scores) > 1 else {}
        store.update(variance.trial.run_id, metrics=metrics)


def gain_metrics(gain: Gain, prefix: str) -> dict[str, float]:
    """Metrics of a gain with its standard error and its 95 % confidence interval."""
    key = prefix + schema.GAIN
    ends = {key + schema.LOW_SUFFIX: gain.low, key + schema.HIGH_SUFFIX: gain.high}
    return {key: gain.value, key + schema.STDERR_SUFFIX: gain.stderr, **ends}
