"""Before the first phase: models are prepared, the search run is opened or resumed, bases are scored."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lamdagent.errors import ConfigError, UserError
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.loop.decide import PAUSE_S
from lamdagent.loop.effects import perform
from lamdagent.loop.landed import base_landed
from lamdagent.loop.ledger import OpenRun
from lamdagent.loop.session import Session
from lamdagent.memory.trial import Trial
from lamdagent.objects.adapters import spec_of
from lamdagent.objects.compatibility import incompatibilities, known_signatures
from lamdagent.objects.model import Model, Origin
from lamdagent.objects.sources import full_spec
from lamdagent.planning.plan import Plan
from lamdagent.scaling.replay_plan import Replay


def prepare(search: Session) -> None:
    """Fetch and convert the initial models, and count the GPUs of a job.

    Raises:
        UserError: a model cannot be used, or the models cannot be used as the actions need.
    """
    view, config = search.world.view, search.plan.config
    counted = search.execute(search.jobs.gpus_job())
    gpus = counted.value if isinstance(counted, Finished) else 0
    search.limits = dataclasses.replace(search.limits, gpus=gpus)
    if config.budget.gpu_hours is not None and not gpus:
        view.say("budget.gpu_hours ends nothing here: there is no GPU", "yellow")
    names = {f"prepare {name}": name for name in config.models}
    ready: dict[str, Model] = {}
    for ended in search.pool.as_completed(_prepare_job(job_id, name, search) for job_id, name in names.items()):
        view.end(ended.job_id)
        name = names[ended.job_id]
        if isinstance(ended, Failed):
            raise UserError(f"models.{name}: {config.models[name].source} cannot be used: {ended.reason}")
        ready[name] = _initial_model(name, ended.value, search.plan)
    _check_reachability(ready, search)
    search.models = tuple(ready[name] for name in names.values())


def search_id(plan: Plan, models: Sequence[Model], replay: Replay | None) -> str:
    """An id that two starts of the same search share, so that the second resumes what the first left."""
    content: dict[str, Any] = {
        "models": [m.fingerprint for m in models],
        "datasets": [d.fingerprint for d in plan.datasets],
        "actions": [(t.name, t.version, sorted(t.grid.items())) for t in plan.types],
        "tasks": [(t.name, t.fingerprint, t.weight) for t in plan.tasks],
        "seed": plan.config.search.seed,
        "data_fraction": plan.config.data_fraction,
        "agent": (plan.config.agent.kind, plan.config.agent.model),
    }
    ladder = plan.config.ladder
    content |= {"resources": [r.fingerprint for r in plan.resources]} if plan.resources else {}
    # Keys that earlier searches lack are there only where something is said: theirs keep the ids that they have.
    arguments = plan.config.agent.arguments
    content |= {"arguments": sorted(map(repr, arguments.items()))} if arguments else {}
    content |= {"replay": replay.content} if replay else {}
    content |= {"ladder": [ladder.rungs, ladder.keep]} if ladder.rungs else {}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:16]


def resume(search: Session) -> None:
    """Open the search run, or resume one that was cut off: its costs are carried over."""
    world = search.world
    spent = world.runs.search_run.open(search_id(world.plan, search.models, world.replay))
    search.ledger = search.ledger.carried_over(spent)
    world.agent.spent_before(spent.usd)


def score_bases(search: Session) -> None:
    """Score the initial models that have no score yet, or wait for the search that scores them.

    Raises:
        UserError: a base cannot be scored.
        KeyboardInterrupt: the user has asked for the end.
    """
    left: list[Model] = list(search.models)
    while left:
        elsewhere: list[Model] = []
        for ended in search.pool.as_completed(_base_jobs(left, elsewhere, search)):
            _base_ended(ended, search)
        search.world.stop.check()
        left = elsewhere
        if left:
            text = f"another search scores the base {left[0].name}"
            search.world.view.begin(text, None, search.ledger.usd)
            search.world.runs.search_run.heartbeat()
            time.sleep(PAUSE_S)
    search.world.view.end()


def read_sources(search: Session) -> None:
    """Read the runs of `memory.sources`, and tell the user how many are understood."""
    search.say_news_of_sources()
    foreign = search.history().external
    if search.plan.config.memory.sources:
        joining = len([t for t in foreign if t.model and t.model.location and not t.model.initial])
        said = f"memory: {len(foreign)} runs of others are understood, {joining} of their models join"
        search.world.view.say(said)


def _prepare_job(job_id: str, name: str, search: Session) -> Job:
    search.world.view.begin(f"prepare model {name}", None, search.ledger.usd, job=job_id)
    return search.jobs.prepare_job(job_id, name)


def _initial_model(name: str, prepared: Any, plan: Plan) -> Model:
    """The initial model `name`, from what its job has found out."""
    origin = Origin.of(full_spec(spec_of(name, plan.config.models)))
    return Model(
        fingerprint=prepared.fingerprint,
        location=prepared.folder,
        base=prepared.fingerprint,
        architecture=prepared.architecture,
        vocabulary=prepared.vocabulary,
        frame=prepared.frame,
        origin=dataclasses.replace(origin, revision=prepared.revision, license=prepared.license),
    )


def _check_reachability(ready: Mapping[str, Model], search: Session) -> None:
    """Repeat the check of the plan: the contents of a GGUF file or of a function are known only now."""
    frames = known_signatures({name: Path(model.location) for name, model in ready.items()})
    if faults := search.plan.unreachable(list(ready.values()), frames):
        raise ConfigError(faults)
    if any(t.takes_several_models for t in search.plan.types):
        for sentence in incompatibilities(frames):
            search.world.view.say(f"{sentence}. Only models that fit are offered together", "yellow")


def _base_jobs(models: Sequence[Model], elsewhere: list[Model], search: Session) -> Iterator[Job]:
    """Jobs for the models without a score; the models that another search is scoring are added to `elsewhere`."""
    for model in models:
        if search.world.stop.requested:
            return
        known = search.history().by_model.get(model.fingerprint)
        if known and known.score:
            _show_base(known, search)
        elif run_id := search.world.runs.begin_base(model, search.plan):
            scores = search.history().scores_of(model.fingerprint, "search")
            search.ledger = search.ledger.opened(run_id, OpenRun(model, known=scores))
            search.world.view.begin(f"score the base {model.name}", None, search.ledger.usd, job=run_id)
            yield search.jobs.eval_job(run_id, model, "search", scores)
        else:
            elsewhere.append(model)


def _show_base(known: Trial, search: Session) -> None:
    search.world.view.trial(known, search.history(), None)


def _base_ended(ended: Finished | Failed, search: Session) -> None:
    model = search.ledger.open[ended.job_id].making
    prune = search.plan.config.retention.automatic
    effects, search.ledger = base_landed(ended, search.ledger, search.limits.gpus, prune)
    perform(effects, None, search)
    if isinstance(ended, Failed):
        assert isinstance(model, Model)
        raise UserError(f"the base {model.name} cannot be scored, so no gain can be told: {ended.reason}")
