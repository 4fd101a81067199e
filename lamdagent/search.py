"""The loop of the paper: enumerate, select, execute and evaluate, remember; everything it knows is in the store."""

import dataclasses
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamdagent.actions.action import Action, ActionType
from lamdagent.budget import Budget
from lamdagent.enumeration import ActionSpace
from lamdagent.errors import LamdagentError, SearchStopped, UserError
from lamdagent.evaluation.task import Split
from lamdagent.execution.executor import Executor, Failed, Finished, Job, Update
from lamdagent.execution.retry import both, rows_at_once, with_less_memory
from lamdagent.execution.work import Outcome
from lamdagent.failures import Streak
from lamdagent.interruption import Interruption
from lamdagent.memory.foreign import Ours, known_names, seeded
from lamdagent.memory.history import build_history, tried_fingerprints
from lamdagent.memory.text import memory_text
from lamdagent.objects.model import Model, Origin
from lamdagent.plan import Plan
from lamdagent.selection.agent import Agent
from lamdagent.selection.policy import Decision, Turn
from lamdagent.terminal import Terminal
from lamdagent.tracking.journal import Journal
from lamdagent.trial import History, Trial

PREPARE_S = 3600.0
"""Longest time that fetching or converting an initial model may take."""
EVALUATE_S = 6 * 3600.0
"""Longest evaluation of one model."""


@dataclass(frozen=True)
class Result:
    """How a search ended."""

    history: History
    champion: Trial | None
    """Best on the search split; a base model when nothing beats it."""
    reason: str
    """Why it ended."""


class Search:
    """One search run: opened, gone through, closed whatever happens."""

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        executor: Executor,
        agent: Agent,
        view: Terminal,
        stop: Interruption | None = None,
    ) -> None:
        """Everything that a search talks to; nothing starts yet. `stop`: what the user's signals ask for."""
        self.plan = plan
        self.journal = journal
        self.executor = executor
        self.agent = agent
        self.view = view
        self.budget = Budget(plan.config.budget)
        self.streak = Streak(plan.config.search.failures_in_a_row)
        self.stop = stop or Interruption()
        self._phase = ""
        self.models: tuple[Model, ...] = ()
        self.work = tempfile.TemporaryDirectory(prefix="lamdagent-")

    def run(self) -> Result:
        """Search until the budget ends or nothing is left to try, then test the best.

        Raises:
            UserError: an initial model cannot be read or scored.
            SearchStopped: failures in a row say that no action can work now.
            KeyboardInterrupt: the user has ended it; nothing is left open.
        """
        status, why = "FAILED", "ended by an error"
        self.models = self._prepare()
        try:
            spent = self.journal.open(search_id(self.plan, self.models))
            self.budget.carry_over(spent)
            self.agent.spent_before(spent.usd)
            self._score_bases()
            self._look_at_others()
            reason = self._loop()
            self._test(reason)
            history = self.history()
            champion = history.scored[0] if history.scored else None
            status, why = "FINISHED", ""
            return Result(history, champion, reason)
        except KeyboardInterrupt:
            status, why = "KILLED", "interrupted by the user"
            raise
        except (UserError, SearchStopped) as error:
            why = str(error)
            raise
        finally:
            with self.stop.ignored():
                self.journal.spent(self.budget.spent)
                self.journal.close(status, why)
                self.work.cleanup()

    def history(self) -> History:
        """Everything the store knows now, other processes' results included, and what the last look at others' said."""
        plan = self.plan
        own = build_history(self.journal.records(), plan.types, plan.datasets, plan.tasks, self.journal.reflection)
        if not plan.config.memory.sources:
            return own
        base = own.by_model.get(self.models[0].fingerprint) if self.models else None
        names = known_names(plan.config.models, self.models)
        ours = Ours(plan.types, plan.datasets, plan.tasks, names, base.scores if base else {})
        return seeded(own, self.journal.sources.trials(ours))

    def space(self, history: History) -> ActionSpace:
        """The legal actions over the initial models and everything produced so far."""
        return action_space(self.plan, self.models, history)

    # Before the loop ---------------------------------------------------------------------------------------------

    def _prepare(self) -> tuple[Model, ...]:
        asked = self._await(Job("gpus", "lamdagent.execution.work:gpus", {}, PREPARE_S))
        self.budget.gpus = asked.value if isinstance(asked, Finished) else 0
        if self.budget.limits.gpu_hours is not None and not self.budget.gpus:
            self.view.say("budget.gpu_hours ends nothing here: there is no GPU", "yellow")
        models = []
        for name, settings in self.plan.config.models.items():
            self.view.begin(f"prepare model {name}", None, self.budget)
            spec = {"source": settings.source, "file": settings.file, "revision": settings.revision}
            spec["license"] = settings.license
            arguments = {"spec": spec, "tracking_uri": self.journal.store.uri}
            ended = self._await(Job(f"prepare {name}", "lamdagent.objects.convert:prepare_model", arguments, PREPARE_S))
            if isinstance(ended, Failed):
                raise UserError(f"models.{name}: {settings.source} cannot be used: {ended.reason}")
            ready = ended.value
            models.append(
                Model(
                    fingerprint=ready.fingerprint,
                    location=ready.folder,
                    base=ready.fingerprint,
                    architecture=ready.architecture,
                    vocabulary=ready.vocabulary,
                    origin=Origin(settings.source, settings.file, ready.revision, ready.license),
                )
            )
        return tuple(models)

    def _score_bases(self) -> None:
        for model in self.models:
            while True:
                self.stop.check()
                known = self.history().by_model.get(model.fingerprint)
                if known and known.score:
                    self.view.trial(known, self.history(), None)
                    break
                if run_id := self.journal.begin_base(model, self.plan):
                    self._score_base(run_id, model)
                    break
                self.view.begin(f"another search scores the base {model.name}", None, self.budget)
                self.journal.sign_of_life()
                time.sleep(1.0)

    def _score_base(self, run_id: str, model: Model) -> None:
        self.view.begin(f"score the base {model.name}", None, self.budget)
        ended = self._spend(self._await(self._scoring(run_id, model, "search")))
        if isinstance(ended, Failed):
            self.journal.fail(run_id, ended)
            raise UserError(f"the base {model.name} cannot be scored, so no gain can be told: {ended.reason}")
        self._finish(run_id, ended, model)

    def _look_at_others(self) -> None:
        for warning in self.journal.sources.refresh():
            self.view.say(warning, "yellow")
        foreign = self.history().foreign
        joining = [t for t in foreign if t.model and t.model.location and not t.model.initial]
        if self.plan.config.memory.sources:
            self.view.say(f"memory: {len(foreign)} runs of others are understood, {len(joining)} of their models join")

    # The loop ----------------------------------------------------------------------------------------------------

    def _loop(self) -> str:
        """Until something ends it; the reason."""
        while True:
            for warning in self.journal.sources.refresh():
                self.view.say(warning, "yellow")
            self.stop.check()
            history = self.history()
            if reason := self.budget.ended(_typical_s(history), self._reserve_s(history)):
                return reason
            space = self.space(history)
            text = memory_text(history, space, self.plan.tasks, self.plan.config.memory.tokens)
            seed = self.plan.config.search.seed
            decision = self.agent.policy(Turn(history, space, self.budget.trials, seed, text))
            if decision is None:
                return "every legal action has been tried"
            self.budget.usd += decision.cost_usd
            self.journal.spent(self.budget.spent)
            self.stop.check()
            if self._done(decision, text):
                continue
            if run_id := self.journal.begin_action(decision, self.plan, text, history):
                self.budget.trials += 1
                self._do(run_id, decision, history)
                self._reflect()

    def _done(self, decision: Decision, text: str) -> bool:
        """Whether the action has a finished run already, which then stands for it and costs nothing."""
        known = self.journal.done(decision, self.plan)
        if known is None:
            return False
        if known.experiment_id != self.journal.store.experiment_id:
            self.budget.trials += 1
            self.journal.adopt(known, decision, self.plan, text)
        self._show(decision.action)
        return True

    def _do(self, run_id: str, decision: Decision, history: History) -> None:
        """Go through with a decision whose run is open: it is closed whatever happens."""
        limit = self.budget.limits.trials
        number = f"{self.budget.trials}/{limit}" if limit else self.budget.trials
        best = history.scored[0].score if history.scored else None
        self.view.begin(f"{number} {decision.action.describe()}", best, self.budget, self._eta(history))
        try:
            ended = self._make(run_id, decision.action, self._reserve_s(history))
        except LamdagentError as error:
            ended = Failed(run_id, str(error), "error")
        if isinstance(ended, Finished):
            self.streak.succeeded()
            self._finish(run_id, ended, produced(decision.action, run_id))
            return
        self.journal.fail(run_id, ended)
        self._show(decision.action)
        if reason := self.streak.failed(decision.action, ended):
            raise SearchStopped(reason)

    def _make(self, run_id: str, action: Action, reserve_s: float) -> Finished | Failed:
        """Run the action, and once more with less at once if memory ran out; within the budget."""
        job = self._making(run_id, action, reserve_s)
        ended = self._spend(self._await(job))
        if isinstance(ended, Failed) and (smaller := with_less_memory(job, ended, self._phase)):
            rows = rows_at_once(smaller)
            self.view.say(f"{ended.reason}: once more with {rows} rows at once, as many per step", "yellow")
            self.journal.tried_again(run_id, rows)
            shutil.rmtree(self._output(run_id), ignore_errors=True)
            job = dataclasses.replace(smaller, timeout_s=self._making(run_id, action, reserve_s).timeout_s)
            ended = both(ended, self._spend(self._await(job)))
        if isinstance(ended, Failed) and ended.kind == "timeout" and job.timeout_s < self._type_of(action).timeout_s:
            return dataclasses.replace(ended, reason=self.budget.over(), kind="budget")
        return ended

    def _spend(self, ended: Finished | Failed) -> Finished | Failed:
        """Count what a job has cost, whatever it gave."""
        self.budget.gpu_seconds += ended.seconds * self.budget.gpus
        self.journal.spent(self.budget.spent)
        return ended

    def _type_of(self, action: Action) -> ActionType:
        return next(t for t in self.plan.types if t.name == action.type)

    def _making(self, run_id: str, action: Action, reserve_s: float) -> Job:
        action_type = self._type_of(action)
        arguments = {
            "run_id": run_id,
            "function": action_type.function,
            "inputs": inputs_of(action, action_type, self.journal.folder),
            "seed": action.seed,
            "data_fraction": action.data_fraction,
            "tasks": self.plan.tasks,
            "batch_size": self.plan.config.evaluation.batch_size,
            "output": str(self._output(run_id)),
        }
        limit = self.budget.limit_s(action_type.timeout_s, reserve_s)
        return Job(run_id, "lamdagent.execution.work:make", arguments, limit)

    def _scoring(self, run_id: str, model: Model, split: Split) -> Job:
        arguments = {
            "folder": self.journal.folder(model),
            "tasks": self.plan.tasks,
            "split": split,
            "batch_size": self.plan.config.evaluation.batch_size,
            "output": str(self._output(run_id)),
        }
        return Job(run_id, "lamdagent.execution.work:score", arguments, EVALUATE_S)

    def _output(self, run_id: str) -> Path:
        """Where the worker leaves files: beside the artifacts when they are local, so that a rename publishes them."""
        folder = self.journal.staging(run_id) or Path(self.work.name) / run_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _await(self, job: Job) -> Finished | Failed:
        self._phase = ""
        self.executor.submit(job)
        while True:
            self.journal.sign_of_life()
            event = self.executor.next_event(1.0)
            if isinstance(event, Update):
                self._phase = event.progress.phase
                self.view.step(event.progress)
            elif event is not None:
                return event

    def _finish(self, run_id: str, ended: Finished, model: Model) -> None:
        outcome: Outcome = ended.value
        self.journal.finish(run_id, outcome, ended.seconds, model, self.plan, self._output(run_id), self.history())
        history = self.history()
        self.journal.progress(history, self.budget.trials)
        self.view.trial(history.by_run[run_id], history, history.base_score())

    def _show(self, action: Action) -> None:
        history = self.history()
        same = [t for t in history.actions if t.action and t.action.fingerprint == action.fingerprint]
        if same:
            self.view.trial(same[-1], history, history.base_score())

    def _reflect(self) -> None:
        if self.agent.reflect is not None:
            history = self.history()
            notes = self.agent.reflect(history, self.journal.reflection, self.space(history))
            self.budget.usd += notes.usd
            self.journal.remember(notes.text, notes.traces, history.actions[-1].run_id)

    # After the loop ----------------------------------------------------------------------------------------------

    def _test(self, reason: str) -> None:
        """Score the best few and the bases on the split that steered nothing."""
        history = self.history()
        best = [t for t in history.scored if t.kind == "action"][: self.plan.config.search.test_top]
        bases = [t for m in self.models if (t := history.by_model.get(m.fingerprint))]
        if not best:
            return
        self.view.say(f"the search ends: {reason}; now the base and the best {len(best)} on the test split")
        for trial in [*bases, *best]:
            if trial.test_score is not None or trial.model is None:
                continue
            model = next((m for m in self.models if m.fingerprint == trial.model.fingerprint), trial.model)
            self.stop.check()
            self.view.begin(f"test {trial.model.name}", history.scored[0].score, self.budget)
            # Its time was kept; it is not cut off where that was a little short: a search without it says nothing.
            ended = self._spend(self._await(self._scoring(trial.run_id, model, "test")))
            self.view.end()
            if isinstance(ended, Failed):
                self.view.say(f"test of {trial.model.name} failed: {ended.reason}", "red")
            else:
                self.journal.tested(trial.run_id, ended.value, self.plan, self._output(trial.run_id))

    def _reserve_s(self, history: History) -> float:
        """What the final test will take: the bases' evaluations, scaled to the test split."""
        bases = [t.seconds for t in history.trials if t.kind == "base" and t.seconds > 0]
        sizes = [(t.limits.get("search"), t.limits.get("test")) for t in self.plan.tasks]
        scale = max([test / search for search, test in sizes if search and test], default=1.0)
        return (self.plan.config.search.test_top + len(self.models)) * max(bases, default=0.0) * scale

    def _eta(self, history: History) -> str:
        limit = self.budget.limits.trials
        typical = _typical_s(history)
        by_trials = (limit - self.budget.trials + 1) * typical if limit and typical else float("inf")
        left = min(by_trials + self._reserve_s(history), self.budget.left_s)
        if not 0 < left < float("inf"):
            return ""
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"


def inputs_of(action: Action, action_type: ActionType, folder: Callable[[Model], str]) -> dict[str, Any]:
    """The keyword arguments of the action's function: folders of models, files of datasets, hyperparameters."""
    things = {m.name: folder(m) for m in action.models} | {d.name: d.path for d in action.datasets}
    several = {slot.name for slot in action_type.slots if slot.kind == "models"}
    objects = {slot: [things[name] for name in names] for slot, names in action.slots.items()}
    return {**action.hyperparameters, **{slot: o if slot in several else o[0] for slot, o in objects.items()}}


def produced(action: Action, run_id: str) -> Model:
    """The model that `action` makes in `run_id`."""
    first = action.models[0]
    bases = {m.base for m in action.models}
    return Model(
        fingerprint=action.fingerprint,
        location=f"runs:/{run_id}/model",
        run_id=run_id,
        base=first.base if len(bases) == 1 else "",
        depth=1 + max(m.depth for m in action.models),
        architecture=first.architecture,
        vocabulary=first.vocabulary,
    )


def action_space(plan: Plan, models: Sequence[Model], history: History) -> ActionSpace:
    """The legal actions over `models`, what the history's actions made, and others' models that are at hand."""
    made = [t.model for t in history.actions if t.model and t.score]
    others = [t.model for t in history.foreign if t.model and t.model.location and not t.model.initial]
    unique = {m.fingerprint: m for m in [*models, *others, *made]}
    return ActionSpace(
        plan.types,
        list(unique.values()),
        plan.datasets,
        tried=tried_fingerprints(history),
        seed=plan.config.search.seed,
        data_fraction=plan.config.data_fraction,
        max_depth=plan.config.search.max_depth,
    )


def search_id(plan: Plan, models: Sequence[Model]) -> str:
    """Equal for two starts of the same search, so that the second goes on where the first was cut off."""
    content: Mapping[str, Any] = {
        "models": [m.fingerprint for m in models],
        "datasets": [d.fingerprint for d in plan.datasets],
        "actions": [(t.name, t.version, sorted(t.grid.items())) for t in plan.types],
        "tasks": [(t.name, t.fingerprint, t.weight) for t in plan.tasks],
        "seed": plan.config.search.seed,
        "data_fraction": plan.config.data_fraction,
        "agent": (plan.config.agent.kind, plan.config.agent.model),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:16]


def _typical_s(history: History) -> float:
    """The longest of the last few actions: a budget should rather end early than late."""
    return max([t.seconds for t in history.actions[-5:] if t.status == "finished"], default=0.0)
