"""The loop of the paper: enumerate, select, execute and evaluate, remember; everything it knows is in the store."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdagent.actions.action import Action
from lamdagent.champion.finalists import champion_of, champion_of_more_data, finalists, promote
from lamdagent.champion.promotion import Standing
from lamdagent.champion.registration import register
from lamdagent.champion.seed_repeats import spreads
from lamdagent.champion.writing import write_seed_scores
from lamdagent.enumeration.space import ActionSpace, produced
from lamdagent.errors import ConfigError, LamdagentError, NotReplayed, SearchStopped, UserError
from lamdagent.evaluation.task import Score
from lamdagent.execution.executor import Executor, Failed, Finished, Job
from lamdagent.loop.budget import Budget
from lamdagent.loop.failures import Streak
from lamdagent.loop.job_factory import Jobs
from lamdagent.loop.job_pool import Flight, Landing
from lamdagent.loop.pool import action_space
from lamdagent.loop.run_writer import RunWriter
from lamdagent.loop.second_try import both, rows_at_once, with_less_memory
from lamdagent.loop.shutdown import Interruption
from lamdagent.loop.terminal import Terminal
from lamdagent.memory.external.parse import Ours, known_names, seeded
from lamdagent.memory.history import Histories
from lamdagent.memory.text import memory_text
from lamdagent.memory.trial import POLICY, RETRYABLE, History, Trial
from lamdagent.objects.adapters import spec_of
from lamdagent.objects.compatibility import known_frames, misfits
from lamdagent.objects.model import Model, Origin
from lamdagent.objects.sources import full_spec
from lamdagent.planning.plan import Plan
from lamdagent.scaling.ladder import promoted
from lamdagent.scaling.replay_plan import Replay
from lamdagent.scaling.replay_policy import ReplayPolicy
from lamdagent.selection.baselines import BASELINES
from lamdagent.selection.policy import Decision, Turn
from lamdagent.selection.registry import Agent
from lamdagent.tracking.runs import RunRecord
from lamdagent.weights.disk_manager import DiskManager
from lamdagent.worker.make import Outcome

LAST_CHANCE_S = 600.0
"""How long a search that is done waits for its store."""


@dataclass(frozen=True)
class Result:
    """How a search ended."""

    history: History
    champion: Trial | None
    """The best finalist whose gain on the search split is beyond the noise; a base model when there is none."""
    registered: str
    """For the user: where the champion lives on; empty when it is a base."""
    reason: str
    """Why it ended."""
    standings: tuple[Standing, ...] = ()
    """Of the finalists, best first."""


@dataclass
class _Open:
    """A run of ours that is not closed yet."""

    making: Model | Action
    """A base that is scored, or an action that is done."""
    first: Failed | None = None
    """How its first try ended, when this is the second."""
    known: Mapping[str, Score] = field(default_factory=dict)
    """Scores of the same weights on the same items, which need not be taken again."""
    weights: str = ""
    """Where the action's model is, when an older run has made it."""


class Search:
    """One search run: opened, gone through, closed whatever happens."""

    def __init__(
        self,
        plan: Plan,
        journal: RunWriter,
        executor: Executor,
        agent: Agent,
        view: Terminal,
        stop: Interruption | None = None,
    ) -> None:
        """Everything that a search talks to; nothing starts yet. `stop`: what the user's signals ask for."""
        self.plan = plan
        self.journal = journal
        self.flight = Flight(executor, view, journal.session.heartbeat)
        self.agent = agent
        self.view = view
        self._histories = Histories(plan.types, plan.datasets, plan.tasks, plan.config.scope)
        self.house = DiskManager(journal.store, plan)
        self.budget = Budget(plan.config.budget, at_once=executor.capacity)
        self.budget.share = 1 / max(1, len(plan.config.ladder.rungs))
        self.streak = Streak(plan.config.search.failures_in_a_row)
        self.halt = ""
        """Why the search must stop once everything has landed; empty while it need not."""
        self.stop = stop or Interruption()
        self._patience_s = LAST_CHANCE_S
        self._done_before: set[str] = set()
        """Fingerprints of picks that had a finished run in the store: of a large experiment, memory is an excerpt."""
        self.replaying: ReplayPolicy | None = None
        """Picks instead of the agent while pipelines are made again at another scale."""
        self.models: tuple[Model, ...] = ()
        self.open: dict[str, _Open] = {}
        self.work = tempfile.TemporaryDirectory(prefix="lamdagent-")
        self.jobs = Jobs(plan, journal, Path(self.work.name))

    def run(self) -> Result:
        """Search until the budget ends or nothing is left to try, then test the best.

        Raises:
            UserError: an initial model cannot be read or scored.
            NotReplayed: no pipeline could be made again in a replay.
            SearchStopped: no action can work now; what else was in flight has landed.
            KeyboardInterrupt: the user has ended it; nothing is left open.
        """
        status, why = "FAILED", "ended by an error"
        self.models = self._prepare()
        try:
            spent = self.journal.session.open(search_id(self.plan, self.models))
            self.budget.carry_over(spent)
            self.agent.spent_before(spent.usd)
            self._score_bases()
            self._look_at_others()
            reason = self._again(self.plan.replay) if self.plan.replay else self._loop()
            for fraction in self.plan.config.ladder.rungs[1:]:
                reason = self._climb(fraction, reason)
            self._test(reason)
            self.settled()  # else the items of what waits cannot be read
            best = self._finalists(self.history())
            standings = promote(best, self.history(), self.journal, self.plan) if best or not self.plan.replay else []
            self._repeat([standing.trial for standing in standings])
            history = self.history()
            champion = champion_of(standings, history, self.journal.store.resolve_run_id)
            registered = self._register(champion)
            status, why = "FINISHED", ""
            return Result(history, champion, registered, reason, tuple(standings))
        except KeyboardInterrupt:
            status, why = "KILLED", "interrupted by the user"
            raise
        except (UserError, SearchStopped, NotReplayed) as error:
            why = str(error)
            raise
        finally:
            with self.stop.ignored():
                self.journal.session.record_spent(self.budget.spent)
                self.journal.session.close(status, why)
                self.work.cleanup()

    def history(self) -> History:
        """Everything the store knows now, other processes' results included, and what the last look at others' said."""
        plan = self.plan
        own = self._histories.history(self.journal.session.records(), self.journal.session.reflection)
        if not plan.config.memory.sources:
            return own
        base = own.by_model.get(self.models[0].fingerprint) if self.models else None
        names = known_names(plan.config.models, self.models)
        ours = Ours(plan.types, plan.datasets, plan.tasks, names, base.scores if base else {})
        return seeded(own, self.journal.sources.trials(ours))

    def space(self, history: History) -> ActionSpace:
        """The legal actions over the initial models and everything produced so far."""
        return action_space(self.plan, self.models, history, self._done_before)

    # Before the loop ---------------------------------------------------------------------------------------------

    def _prepare(self) -> tuple[Model, ...]:
        asked = next(self.flight.each([self.jobs.gpus()]))
        self.budget.gpus = asked.value if isinstance(asked, Finished) else 0
        if self.budget.limits.gpu_hours is not None and not self.budget.gpus:
            self.view.say("budget.gpu_hours ends nothing here: there is no GPU", "yellow")
        names = {f"prepare {name}": name for name in self.plan.config.models}
        ready = {}
        for ended in self.flight.each(self._preparing(job, name) for job, name in names.items()):
            self.view.end(ended.job_id)
            name = names[ended.job_id]
            settings = self.plan.config.models[name]
            if isinstance(ended, Failed):
                raise UserError(f"models.{name}: {settings.source} cannot be used: {ended.reason}")
            found = ended.value
            ready[name] = Model(
                fingerprint=found.fingerprint,
                location=found.folder,
                base=found.fingerprint,
                architecture=found.architecture,
                vocabulary=found.vocabulary,
                frame=found.frame,
                origin=dataclasses.replace(
                    Origin.of(full_spec(spec_of(name, self.plan.config.models))),
                    revision=found.revision,
                    license=found.license,
                ),
            )
        self._check_reach(ready)
        return tuple(ready[name] for name in names.values())

    def _check_reach(self, ready: Mapping[str, Model]) -> None:
        """Once more as at the door: what a GGUF file or a function holds is known only now."""
        frames = known_frames({name: Path(model.location) for name, model in ready.items()})
        if faults := self.plan.unreachable(list(ready.values()), frames):
            raise ConfigError(faults)
        if any(slot.kind == "models" for t in self.plan.types for slot in t.slots):
            for sentence in misfits(frames):
                self.view.say(f"{sentence}. Only models that fit are offered together", "yellow")

    def _preparing(self, job_id: str, name: str) -> Job:
        self.view.begin(f"prepare model {name}", None, self.budget, job=job_id)
        return self.jobs.preparing(job_id, name)

    def _score_bases(self) -> None:
        left: list[Model] = list(self.models)
        while left:
            elsewhere: list[Model] = []
            for ended in self.flight.each(self._bases(left, elsewhere)):
                self._base_ended(ended)
            self.stop.check()
            left = elsewhere
            if left:
                self.view.begin(f"another search scores the base {left[0].name}", None, self.budget)
                self.journal.session.heartbeat()
                time.sleep(1.0)
        self.view.end()

    def _bases(self, models: Sequence[Model], elsewhere: list[Model]) -> Iterator[Job]:
        """Jobs for those that nobody has scored; those that another search is scoring are added to `elsewhere`."""
        for model in models:
            if self.stop.requested:
                return
            known = self.history().by_model.get(model.fingerprint)
            if known and known.score:
                self.view.trial(known, self.history(), None)
            elif run_id := self.journal.begin_base(model, self.plan):
                scores = self.history().scores_of(model.fingerprint, "search")
                self.open[run_id] = _Open(model, known=scores)
                self.view.begin(f"score the base {model.name}", None, self.budget, job=run_id)
                yield self.jobs.scoring(run_id, model, "search", scores)
            else:
                elsewhere.append(model)

    def _base_ended(self, ended: Finished | Failed) -> None:
        self._spend(ended)
        run = self.open.pop(ended.job_id)
        model = run.making
        assert isinstance(model, Model)
        if isinstance(ended, Failed):
            self.journal.fail(ended.job_id, ended)
            raise UserError(f"the base {model.name} cannot be scored, so no gain can be told: {ended.reason}")
        self._finish(ended, model, run.known)

    def _look_at_others(self) -> None:
        for warning in self.journal.sources.refresh():
            self.view.say(warning, "yellow")
        foreign = self.history().foreign
        joining = [t for t in foreign if t.model and t.model.location and not t.model.initial]
        if self.plan.config.memory.sources:
            self.view.say(f"memory: {len(foreign)} runs of others are understood, {len(joining)} of their models join")

    # Another scale -----------------------------------------------------------------------------------------------

    def _again(self, replay: Replay) -> str:
        """Make pipelines again, all of them that can be; why it ended.

        Raises:
            NotReplayed: none of them could be, though nothing else was asked for.
        """
        self.replaying = ReplayPolicy(
            replay, self.plan.types, dict(zip(self.plan.config.models, self.models, strict=True))
        )
        reason = self._loop()
        history = self.history()
        for step in self.replaying.steps(history).values():
            if step.state == "failed":
                self.view.say(f"not made again, nor what rests on it: the run {step.source.run_id}: {step.why}", "red")
        self.house.after(history, self.view.say)
        if self.plan.replay and not self.replaying.made(history):
            raise NotReplayed(self.replaying.shortfall(history, reason))
        return reason

    def _climb(self, fraction: float, reason: str) -> str:
        """Make the best of this rung again with more data; why it ended."""
        replay = promoted(self.history(), self.plan, fraction)
        self.view.say(f"{reason}; now the best {len(replay.trials)} with {fraction:.0%} of the data")
        self.plan = self.plan.at(fraction)
        self._histories = Histories(self.plan.types, self.plan.datasets, self.plan.tasks, fraction)
        self.journal.session.record_rung(self.plan)
        rungs = self.plan.config.ladder.rungs
        self.budget.share = (rungs.index(fraction) + 1) / len(rungs)
        self.budget.limits = dataclasses.replace(self.budget.limits, trials=None)  # nobody chooses any more
        return self._again(replay)

    # The loop ----------------------------------------------------------------------------------------------------

    def _loop(self) -> str:
        """Until something ends it and everything has landed; the reason.

        Raises:
            KeyboardInterrupt, SearchStopped: as `run` says.
        """
        while True:
            reason = self._fill()
            if not self.flight:
                self.stop.check()
                if self.halt:
                    raise SearchStopped(self.halt)
                return reason
            self._action_ended(self.flight.land())

    def _fill(self) -> str:
        """Take turns until no more actions fit; why no further one may start now, or an empty string."""
        while self.flight.free:
            if reason := self._ending() or self._turn():
                return reason
        return ""

    def _ending(self) -> str:
        return "the user has asked for the end" if self.stop.requested else self.halt

    def _turn(self) -> str:
        """One decision, and its action started; why there is none, or an empty string."""
        for warning in self.journal.sources.refresh():
            self.view.say(warning, "yellow")
        history = self.history()
        if reason := self.budget.ended(_typical_s(history), self._reserve_s(history)):
            return reason
        space = self.space(history)
        told = self.plan.tasks, self.plan.config.memory.tokens
        text = functools.cache(functools.partial(memory_text, history, space, *told))
        seed, running = self.plan.config.search.seed, pending(history)
        policy = self.replaying or self.agent.policy
        decision = policy(Turn(history, space, self.budget.trials, seed, text, running))
        if decision is None:
            return self._nothing()
        self.budget.usd += decision.cost_usd
        self.journal.session.record_spent(self.budget.spent)
        known = self.journal.find_finished(decision.action)
        if self.stop.requested or self._done(decision, text, known):
            return self._ending()
        if problem := self.house.disk_full_reason(decision.action, history, self.journal.session.run_id):
            if not self.flight:  # else what lands may make room
                self.halt = problem
            return problem
        if run_id := self.journal.begin_action(decision, self.plan, text, history):
            self.budget.trials += 1
            self.open[run_id] = _Open(decision.action)
            self._start(run_id, decision.action, history, known)
        return ""

    def _nothing(self) -> str:
        """Why no action can start; empty after a moment when another search is at what is waited for."""
        if self.replaying is None:
            baseline = self.plan.config.agent.kind in BASELINES
            return "the baseline is complete" if baseline else "every legal action has been tried"
        if self.replaying.waiting and not self.flight:
            self.journal.session.heartbeat()
            time.sleep(1.0)
            return ""
        return "every step has been made that can be"

    def _done(self, decision: Decision, text: Callable[[], str], known: RunRecord | None) -> bool:
        """Whether the action's finished run stands for it and costs nothing."""
        if known is None or not self.journal.is_complete(known):
            return False
        self._done_before.add(decision.action.fingerprint)
        if known.experiment_id != self.journal.store.experiment_id:
            self.budget.trials += 1
            self.journal.adopt(known, decision, self.plan, text, self.history())
        self._show(decision.action)
        return True

    def _start(self, run_id: str, action: Action, history: History, known: RunRecord | None) -> None:
        """Send off an action whose run is open; what cannot even be started has failed. `known`: scored otherwise."""
        limit = self.budget.limits.trials
        number = f"{self.budget.trials}/{limit}" if limit else self.budget.trials
        best = history.scored[0].score if history.scored else None
        self.view.begin(f"{number} {action.describe()}", best, self.budget, self._eta(history), run_id)
        try:
            limit_s = self._limit_s(action, history)
            job = self._scoring_again(run_id, action, known, limit_s) or self.jobs.making(run_id, action, limit_s)
        except LamdagentError as error:
            self._close(action, Failed(run_id, str(error), "error"))
        else:
            self.flight.launch(job)

    def _scoring_again(self, run_id: str, action: Action, known: RunRecord | None, limit_s: float) -> Job | None:
        """Only the scoring, on the tasks that are new, of a model that an older run has made."""
        made = self.journal.reusable_weights(known) if known else None
        if made is None:
            return None
        model = dataclasses.replace(produced(action, run_id), location=made.weights)
        with contextlib.suppress(LamdagentError):  # gone after all: it is made again
            job = self.jobs.scoring(run_id, model, "search", made.scores)
            self.journal.record_reuse(run_id, made)
            self.open[run_id] = _Open(action, known=made.scores, weights=made.weights)
            return dataclasses.replace(job, timeout_s=min(job.timeout_s, limit_s))
        return None

    def _limit_s(self, action: Action, history: History) -> float:
        return self.budget.limit_s(self.jobs.type_of(action).timeout_s, self._reserve_s(history))

    def _action_ended(self, landing: Landing) -> None:
        """Close the run of an action, unless it gets a second try."""
        run = self.open[landing.job.id]
        action = run.making
        assert isinstance(action, Action)
        ended = self._spend(landing.ended, self.jobs.type_of(action).processes)
        if run.first is not None:
            ended = both(run.first, ended)
        elif isinstance(ended, Failed) and (smaller := with_less_memory(landing.job, ended, landing.phase)):
            run.first = ended
            self._try_again(smaller, ended, action)
            return
        whole = self.jobs.type_of(action).timeout_s
        if isinstance(ended, Failed) and ended.kind == "timeout" and landing.job.timeout_s < whole:
            ended = dataclasses.replace(ended, reason=self.budget.over(), kind="budget")
        self._close(action, ended)

    def _try_again(self, smaller: Job, failed: Failed, action: Action) -> None:
        rows = rows_at_once(smaller)
        self.view.say(f"{failed.reason}: once more with {rows} rows at once, as many per step", "yellow")
        self.journal.record_second_try(smaller.id, rows)
        shutil.rmtree(self.jobs.output(smaller.id), ignore_errors=True)
        self.jobs.output(smaller.id)
        self.flight.launch(dataclasses.replace(smaller, timeout_s=self._limit_s(action, self.history())))

    def _close(self, action: Action, ended: Finished | Failed) -> None:
        """End the run of an action, and think about it."""
        run = self.open.pop(ended.job_id)
        if isinstance(ended, Finished):
            self.streak.succeeded()
            model = produced(action, ended.job_id)
            self._finish(ended, dataclasses.replace(model, location=run.weights or model.location), run.known)
        else:
            if ended.kind in RETRYABLE:
                self.budget.trials -= 1  # as after a restart: the same turn again
            shutil.rmtree(self.jobs.output(ended.job_id), ignore_errors=True)
            self.journal.fail(ended.job_id, ended)
            self._show(action)
            self.halt = self.halt or self.streak.failed(action, ended)
        self._reflect(ended.job_id)

    def _spend(self, ended: Finished | Failed, processes: int = 1) -> Finished | Failed:
        """Count what a job has cost, whatever it gave; it holds a GPU for each of its `processes` until its end."""
        self.budget.gpu_seconds += ended.seconds * self.budget.gpus * processes
        self.journal.session.record_spent(self.budget.spent)
        return ended

    def _finish(self, ended: Finished, model: Model, known: Mapping[str, Score]) -> None:
        run_id, outcome = ended.job_id, ended.value
        assert isinstance(outcome, Outcome)
        outcome = dataclasses.replace(outcome, scores={**known, **outcome.scores})
        output = self.jobs.output(run_id)
        self.journal.finish(run_id, outcome, ended.seconds, model, self.plan, output, self.history())
        history = self.history()
        running = len([run for run in self.open.values() if isinstance(run.making, Action)])
        self.journal.session.record_progress(history, self.budget.trials - running)
        if outcome.data and (overlap := outcome.data.get("overlap")):
            self.view.say(overlap, "yellow")
        self.view.trial(history.by_run[self.journal.store.resolve_run_id(run_id)], history, history.base_score())
        if not self.replaying:  # else a step may need what no score speaks for
            self.house.after(history, self.view.say)

    def _show(self, action: Action) -> None:
        history = self.history()
        same = [t for t in history.actions if t.action and t.action.fingerprint == action.fingerprint]
        if same:
            self.view.trial(same[-1], history, history.base_score())

    def _reflect(self, run_id: str) -> None:
        if self.agent.reflect is not None and not self.replaying:
            history = self.history()
            notes = self.agent.reflect(history, self.journal.session.reflection, self.space(history))
            self.budget.usd += notes.usd
            self.journal.session.record_reflection(notes.text, notes.traces, run_id)

    # After the loop ----------------------------------------------------------------------------------------------

    def _test(self, reason: str) -> None:
        """Score the best few and the bases on the split that steered nothing."""
        history = self.history()
        best = self._finalists(history)
        bases = [t for m in self.models if (t := history.by_model.get(m.fingerprint))]
        if not best:
            return
        self.view.say(f"the search ends: {reason}; now the base and the best {len(best)} on the test split")
        models = {t.run_id: t.model for t in (*bases, *best) if t.model and t.test_score is None}
        # Its time was kept; it is not cut off where that was a little short: a search without it says nothing.
        for ended in self.flight.each(self._testing(models, history)):
            self.view.end(ended.job_id)
            self._spend(ended)
            if isinstance(ended, Failed):
                self.view.say(f"test of {models[ended.job_id].name} failed: {ended.reason}", "red")
            else:
                model = models[ended.job_id]
                scores = {**history.scores_of(model.fingerprint, "test"), **ended.value.scores}
                self.journal.record_test(ended.job_id, scores, self.plan, self.jobs.output(ended.job_id))
        self.stop.check()

    def _finalists(self, history: History) -> list[Trial]:
        """The best few, and the pipeline that was to be made again; nobody where none of those could be made."""
        best = finalists(history, self.plan.config.search.test_top)
        if self.plan.replay is None or self.replaying is None:
            return best
        made = self.replaying.made(history)
        if len(self.plan.replay.trials) == 1:
            best += [trial for trial in made if trial not in best and not trial.pruned]
        return best if made else []

    def _testing(self, models: Mapping[str, Model], history: History) -> Iterator[Job]:
        for run_id, model in models.items():
            if self.stop.requested:
                return
            initial = next((m for m in self.models if m.fingerprint == model.fingerprint), model)
            self.view.begin(f"test {model.name}", history.scored[0].score, self.budget, job=run_id)
            yield self.jobs.scoring(run_id, initial, "test", history.scores_of(model.fingerprint, "test"))

    def _repeat(self, best: Sequence[Trial]) -> None:
        """Make the finalists again with further seeds; nothing is chosen by it."""
        config = self.plan.config
        seeds = [config.search.seed + number for number in range(1, config.champion.seeds + 1)]
        for spread in spreads(best, self.history(), self.plan.types, seeds, self._do) if seeds else ():
            write_seed_scores(self.journal.store, spread)
            self.view.say(str(spread))
        self.stop.check()

    def _do(self, action: Action) -> Trial | None:
        """The trial of an action that need not be chosen; None when it fails, or there is no time for it."""
        decision = Decision(action, POLICY, f"A finalist's pipeline with seed {action.seed}.")
        history, known = self.history(), self.journal.find_finished(action)
        if self.stop.requested or self.budget.left_s <= 0:
            return None
        if not self._done(decision, str, known):
            run_id = self.journal.begin_action(decision, self.plan, str, history)
            if run_id:
                self.budget.trials += 1
                self.open[run_id] = _Open(action)
                self._start(run_id, action, history, known)
            while self.flight:
                self._action_ended(self.flight.land())
        same = [t for t in self.history().actions if t.action and t.action.fingerprint == action.fingerprint]
        return next((t for t in reversed(same) if t.score and not t.pruned), None)

    def _register(self, champion: Trial | None) -> str:
        """The search has not ended before its winner is where others find it."""
        if champion is None or champion.kind == "base":
            return ""
        if not self.settled():
            return f"champion: {champion.run_id}, not registered while the store is away"
        history = self.history()
        run_id = self.journal.store.resolve_run_id(champion.run_id)
        if other := champion_of_more_data(self.journal.session.records(), self.plan.config.scope):
            return f"champion: {run_id}, not registered: {other} was chosen with more of the data and stays"
        return register(history.by_run[run_id], history, self.journal, self.flight, self.plan)

    def settled(self) -> bool:
        """Wait for a store that is away, some minutes in all; whether it has got everything."""
        store = self.journal.store
        patience_s, self._patience_s = (self._patience_s, 0.0) if store.backlog else (0.0, self._patience_s)
        if patience_s:
            text = f"the store does not answer; waiting up to {patience_s / 60:.0f} minutes (Ctrl-C: later)"
            self.view.say(text, "yellow")
        return store.flush(patience_s)

    def _reserve_s(self, history: History) -> float:
        """What the final test will take: the bases' evaluations, scaled to the test split."""
        bases = [t.seconds for t in history.trials if t.kind == "base" and t.seconds > 0]
        sizes = [(t.limits.get("search"), t.limits.get("test")) for t in self.plan.tasks]
        scale = max([test / search for search, test in sizes if search and test], default=1.0)
        rounds = math.ceil((self.plan.config.search.test_top + len(self.models)) / self.flight.width)
        return rounds * max(bases, default=0.0) * scale

    def _eta(self, history: History) -> str:
        limit = self.budget.limits.trials
        typical = _typical_s(history)
        by_trials = (limit - self.budget.trials + 1) * typical / self.flight.width if limit and typical else math.inf
        left = min(by_trials + self._reserve_s(history), self.budget.left_s)
        if not 0 < left < math.inf:
            return ""
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"


def pending(history: History) -> tuple[Action, ...]:
    """The actions that run now, here and in other searches on the same store."""
    return tuple(t.action for t in history.actions if t.status == "running" and t.action and t.action.models)


def search_id(plan: Plan, models: Sequence[Model]) -> str:
    """Equal for two starts of the same search, so that the second goes on where the first was cut off."""
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
    content |= {"replay": plan.replay.content} if plan.replay else {}
    content |= {"ladder": [ladder.rungs, ladder.keep]} if ladder.rungs else {}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:16]


def _typical_s(history: History) -> float:
    """The longest of the last few actions: a budget should rather end early than late."""
    ended = [t for t in history.actions if t.status != "running"]
    return max([t.seconds for t in ended[-5:] if t.status == "finished"], default=0.0)
