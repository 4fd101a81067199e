"""One search in progress: the world and the few things that change while it runs."""

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamdagent.actions.action import Action
from lamdagent.enumeration.space import ActionSpace
from lamdagent.errors import NotReplayed, SearchStopped, UserError
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.loop import estimates
from lamdagent.loop.action_space import build_action_space
from lamdagent.loop.decide import Prior
from lamdagent.loop.failure_streak import FailureStreak
from lamdagent.loop.job_factory import JobFactory
from lamdagent.loop.job_pool import JobPool
from lamdagent.loop.ledger import Ledger
from lamdagent.loop.limits import Limits
from lamdagent.loop.phases import Phase
from lamdagent.loop.world import World
from lamdagent.memory.external.context import SearchContext, known_names, with_external
from lamdagent.memory.history import Histories
from lamdagent.memory.text import memory_text
from lamdagent.memory.trial import History
from lamdagent.objects.model import Model
from lamdagent.selection.policy import Turn
from lamdagent.weights.disk_manager import DiskManager


class Session:
    """The mutable state of one search; only the functions of this room change it."""

    def __init__(self, world: World) -> None:
        """Nothing starts yet."""
        plan = world.plan
        self.world = world
        self.plan = plan
        """The plan at the data fraction of the present phase."""
        self.models: tuple[Model, ...] = ()
        """The initial models, once they are prepared."""
        self.ledger = Ledger(streak=FailureStreak(plan.config.search.failures_in_a_row))
        self.limits = Limits(plan.config.budget, at_once=world.executor.capacity)
        self.pool = JobPool(world.executor, world.view, world.runs.search_run.heartbeat)
        self.disk = DiskManager(world.runs.store, plan)
        self.done: set[str] = set()
        """Fingerprints of choices with a finished run in the store: the history of a large experiment is an excerpt."""
        self.work = tempfile.TemporaryDirectory(prefix="lamdagent-")
        self.jobs = JobFactory(plan, world.runs, Path(self.work.name))
        self._fraction = plan.config.scope
        self._histories = Histories(plan.types, plan.datasets, plan.tasks, self._fraction, plan.resources)

    def enter(self, phase: Phase) -> None:
        """Compare runs of the phase's data fraction from now on."""
        if phase.fraction is None or phase.fraction == self._fraction:
            return
        self._fraction = phase.fraction
        self.plan = self.plan.at(phase.fraction)
        self._histories = Histories(
            self.plan.types, self.plan.datasets, self.plan.tasks, phase.fraction, self.plan.resources
        )
        self.world.runs.search_run.record_rung(self.plan)

    def history(self) -> History:
        """Everything that the store knows now, results of other processes included, and the latest of other teams."""
        plan, runs = self.plan, self.world.runs
        own = self._histories.history(runs.search_run.records(), runs.search_run.reflection)
        if not plan.config.memory.sources:
            return own
        base = own.by_model.get(self.models[0].fingerprint) if self.models else None
        names = known_names(plan.config.models, self.models)
        ours = SearchContext(plan.types, plan.datasets, plan.tasks, names, base.scores if base else {})
        return with_external(own, runs.sources.trials(ours))

    def space(self, history: History) -> ActionSpace:
        """The legal actions over the initial models and everything produced so far."""
        return build_action_space(self.plan, self.models, history, self.done)

    def turn(self, history: History, keep_memory: bool) -> Turn:
        """The question to the policy; its memory text is empty where it is not kept."""
        space, config = self.space(history), self.plan.config
        text = functools.cache(functools.partial(memory_text, history, space, self.plan.tasks, config.memory.tokens))
        seed, memory = config.search.seed, text if keep_memory else str
        return Turn(history, space, self.ledger.trials, seed, memory, _running(history))

    def find(self, action: Action) -> Prior | None:
        """A finished run of the action, of whatever experiment; a complete one if there is any."""
        runs = self.world.runs
        record = runs.find_finished(action)
        if record is None:
            return None
        here = record.experiment_id == runs.store.experiment_id
        return Prior(record, runs.is_complete(record), here, runs.reusable_weights(record))

    def reserve_s(self, history: History) -> float:
        """Expected seconds of the final test."""
        return estimates.reserve_s(history, self.plan, self.pool.capacity)

    def timeout_s(self, phase: Phase, action: Action, history: History) -> float:
        """The timeout of the action's job, so that the final test still fits into the limits."""
        own_s = self.jobs.type_of(action).timeout_s
        return phase.limits.timeout_s(self.ledger, own_s, self.reserve_s(history))

    def execute(self, job: Job) -> Finished | Failed:
        """The end of `job`, which runs alone."""
        return next(self.pool.as_completed([job]))

    def say_news_of_sources(self) -> None:
        """Read the runs of `memory.sources` again, and show what is wrong with them."""
        for warning in self.world.runs.sources.refresh():
            self.world.view.say(warning, "yellow")


def _running(history: History) -> tuple[Action, ...]:
    """The actions that run now, here and in other searches on the same store."""
    return tuple(t.action for t in history.actions if t.status == "running" and t.action and t.action.models)


@contextmanager
def closing(search: Session) -> Iterator[None]:
    """Close the search run at the end of the block, whatever happens inside."""
    status, why = "FAILED", "ended by an error"
    try:
        yield
        status, why = "FINISHED", ""
    except KeyboardInterrupt:
        status, why = "KILLED", "interrupted by the user"
        raise
    except (UserError, SearchStopped, NotReplayed) as error:
        why = str(error)
        raise
    finally:
        with search.world.stop.shielded():
            search.world.runs.search_run.record_spent(search.ledger.spent)
            search.world.runs.search_run.close(status, why)
            search.work.cleanup()
