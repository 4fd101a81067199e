"""After the last phase: the finalists are tested, promoted and repeated with other seeds; the champion registered."""

from collections.abc import Iterator, Mapping, Sequence

from lamdagent.champion.finalists import champion_of, champion_of_more_data, finalists, promote
from lamdagent.champion.promotion import PromotionResult
from lamdagent.champion.registration import register
from lamdagent.champion.seed_repeats import SeedRepeats
from lamdagent.champion.writing import write_promotion, write_seed_scores
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.loop.effects import perform
from lamdagent.loop.landed import SaveCosts
from lamdagent.loop.phases import Phase, seed_repeats
from lamdagent.loop.session import Session
from lamdagent.loop.turns import loop
from lamdagent.loop.world import Result
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.model import Model


def conclude(phase: Phase, search: Session, reason: str) -> Result:
    """The result of the search, whose last phase was `phase` and ended for `reason`.

    Raises:
        KeyboardInterrupt: the user has asked for the end.
    """
    run_final_test(phase, search, reason)
    search.world.settled()  # the items of runs that still wait for the store cannot be read
    best = _finalists(phase, search, search.history())
    promotions = promote_finalists(best, search) if best or not search.world.replay else ()
    repeat_with_seeds([result.trial for result in promotions], phase, search)
    history = search.history()
    champion = champion_of(promotions, history, search.world.runs.store.resolve_run_id)
    registered = register_champion(champion, search)
    replayed = tuple(phase.replay.results(history)) if search.world.replay and phase.replay else ()
    return Result(history, champion, registered, reason, promotions, replayed)


def run_final_test(phase: Phase, search: Session, reason: str) -> None:
    """Score the finalists and the bases on the test split, which has steered nothing.

    Raises:
        KeyboardInterrupt: the user has asked for the end.
    """
    history, world = search.history(), search.world
    best = _finalists(phase, search, history)
    if not best:
        return
    world.view.say(f"the search ends: {reason}; now the base and the best {len(best)} on the test split")
    bases = [t for m in search.models if (t := history.by_model.get(m.fingerprint))]
    models = {t.run_id: t.model for t in (*bases, *best) if t.model and t.test_score is None}
    # No time limit here: time was kept for the final test, and without its scores a search says nothing.
    for ended in search.pool.as_completed(_test_jobs(models, history, search)):
        _test_ended(ended, models[ended.job_id], history, search)
    world.stop.check()


def promote_finalists(best: Sequence[Trial], search: Session) -> tuple[PromotionResult, ...]:
    """The states of the finalists, after they are stored with their gains; empty where no base has a score."""
    history, runs, plan = search.history(), search.world.runs, search.plan
    found = promote(best, history, runs.store, plan.tasks, plan.config.champion.beyond)
    if found is None:
        return ()
    write_promotion(runs.store, runs.search_run.run_id, found, history)
    return found.results


def repeat_with_seeds(best: Sequence[Trial], last: Phase, search: Session) -> None:
    """Make the finalists again with further seeds, and store the variance of their scores; nothing is chosen by it.

    Raises:
        KeyboardInterrupt: the user has asked for the end.
    """
    config = search.plan.config
    seeds = [config.search.seed + number for number in range(1, config.champion.seeds + 1)]
    if best and seeds:
        repeats = SeedRepeats(best, search.history(), search.plan.types, seeds)
        loop(seed_repeats(last, repeats), search)
        for variance in repeats.variances(search.history()):
            write_seed_scores(search.world.runs.store, variance)
            search.world.view.say(str(variance))
    search.world.stop.check()


def register_champion(champion: Trial | None, search: Session) -> str | None:
    """Messages for the user on where the champion is registered, or why it is not; None where it is a base."""
    if champion is None or champion.kind == "base":
        return None
    world = search.world
    if not world.settled():
        return f"champion: {champion.run_id}, not registered while the store is away"
    history = search.history()
    run_id = world.runs.store.resolve_run_id(champion.run_id)
    if other := champion_of_more_data(world.runs.search_run.records(), search.plan.config.scope):
        return f"champion: {run_id}, not registered: {other} was chosen with more of the data and stays"
    return register(history.by_run[run_id], history, world.runs, search.execute, search.plan)


def _finalists(phase: Phase, search: Session, history: History) -> list[Trial]:
    """The best few trials, and the pipeline of a replay; empty where a replay has made none of its pipelines."""
    best = finalists(history, search.plan.config.search.test_top)
    replay = search.world.replay
    if replay is None or phase.replay is None:
        return best
    made = phase.replay.made(history)
    if len(replay.trials) == 1:
        best += [trial for trial in made if trial not in best and not trial.pruned]
    return best if made else []


def _test_jobs(models: Mapping[str, Model], history: History, search: Session) -> Iterator[Job]:
    view = search.world.view
    for run_id, model in models.items():
        if search.world.stop.requested:
            return
        initial = next((m for m in search.models if m.fingerprint == model.fingerprint), model)
        view.begin(f"test {model.name}", history.scored[0].score, search.ledger.usd, job=run_id)
        yield search.jobs.eval_job(run_id, initial, "test", history.scores_of(model.fingerprint, "test"))


def _test_ended(ended: Finished | Failed, model: Model, history: History, search: Session) -> None:
    view = search.world.view
    view.end(ended.job_id)
    search.ledger = search.ledger.used(ended.seconds, search.limits.gpus)
    perform([SaveCosts(search.ledger.spent)], None, search)
    if isinstance(ended, Failed):
        view.say(f"test of {model.name} failed: {ended.reason}", "red")
        return
    scores = {**history.scores_of(model.fingerprint, "test"), **ended.value.scores}
    search.world.runs.record_test(ended.job_id, scores, search.plan, search.jobs.output(ended.job_id))
