"""One search or replay from the opened store to its result: the only file that knows how the loop is put together."""

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamdagent.actions.methods import worker_libraries
from lamdagent.execution.registry import make_executor
from lamdagent.libraries import known_warnings_ignored, quiet_libraries, uncollected
from lamdagent.loop.shutdown import GracefulShutdown
from lamdagent.tracking.fluent import fluent_state_kept

if TYPE_CHECKING:
    from lamdagent.api.result import Result
    from lamdagent.execution.executor import Executor
    from lamdagent.loop.terminal import Terminal
    from lamdagent.loop.world import Result as SearchResult
    from lamdagent.loop.world import World
    from lamdagent.planning.plan import Plan
    from lamdagent.scaling.replay_plan import Replay, Step
    from lamdagent.tracking.store import RunStore


@dataclass(frozen=True)
class Ended:
    """A search that has ended, while its store is still open."""

    result: "Result"
    steps: tuple["Step", ...]
    """The last step of each pipeline that was to be made again, in their order; empty for a search."""
    store: "RunStore"


INTERRUPTED = "the search was interrupted and nothing is left open; the same call goes on from the store"
"""For who sees the exception."""
Conclude = Callable[[Ended], None]
"""Function that writes to the store last."""


def carry_out(
    plan: "Plan",
    config_yaml: str,
    view: "Terminal",
    replay: "Replay | None" = None,
    conclude: Conclude | None = None,
) -> Ended:
    """The search of `plan`, or the `replay` under it, once it has ended.

    `view` shows its progress; `conclude` may write before the store is left.

    Signal handlers, MLflow's address and the loggers are as before at the end.

    Raises:
        UserError: an initial model cannot be read or scored.
        NotReplayed: no pipeline could be made again in a replay.
        SearchStopped: no action can work now; what else was in flight has landed.
        KeyboardInterrupt: the user has ended it; nothing is left open.
    """
    quiet_libraries()
    with known_warnings_ignored(), fluent_state_kept(), view.saying_warnings():
        for warning in plan.findings.warnings:
            view.say(warning, "yellow")
        try:
            with _interruption() as stop:
                return _carry_out(plan, config_yaml, view, stop, replay, conclude)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(INTERRUPTED) from None
        finally:
            view.close()


@contextmanager
def _interruption() -> Iterator[GracefulShutdown]:
    """Ctrl-C asks for the end after what runs now, once more for the end at once; only where signals can be handled."""
    stop = GracefulShutdown()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop.install()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _carry_out(
    plan: "Plan",
    config_yaml: str,
    view: "Terminal",
    stop: GracefulShutdown,
    replay: "Replay | None",
    conclude: Conclude | None,
) -> Ended:
    libraries = worker_libraries(kind.function for kind in plan.types)
    executor = make_executor(plan.config, libraries)  # its worker imports while MLflow is imported and the store opened
    try:
        from lamdagent.tracking.connect import complete_file

        with uncollected():  # not for good: what MLflow opens would stay open, and SQLite's log beside its file
            from lamdagent.loop.search import run

            world = _opened(plan, config_yaml, executor, view, stop, replay)
        store = world.runs.store
        try:
            found = run(world)
            ended = Ended(_result(plan, store, world.runs.search_run.run_id, found), found.replayed, store)
            if conclude is not None:
                conclude(ended)
            if not world.settled():
                left = store.backlog
                view.say(f"{left.writes} writes wait in {left.folder}; the next start writes them", "yellow")
            return ended
        finally:
            complete_file(store.uri)
    finally:
        executor.close()


def _opened(
    plan: "Plan",
    config_yaml: str,
    executor: "Executor",
    view: "Terminal",
    stop: GracefulShutdown,
    replay: "Replay | None",
) -> "World":
    """The world of the search, with its store, which the user is told about."""
    from lamdagent.loop.run_writer import RunWriter
    from lamdagent.loop.world import World
    from lamdagent.selection.registry import make_agent
    from lamdagent.text import hide_passwords
    from lamdagent.tracking.searches import recover_writes
    from lamdagent.tracking.store import RunStore
    from lamdagent.tracking.traces import traced_call

    store = RunStore(plan.config.tracking.uri, plan.config.tracking.experiment)
    journal = RunWriter(store, plan, hide_passwords(config_yaml), replay)
    agent = make_agent(plan.config, plan.tasks, functools.partial(traced_call, store))
    view.say(f"lamdagent: {replay.title if replay else agent.name}")
    view.say(f"store: {hide_passwords(store.uri)}, experiment {store.experiment}")
    if found := recover_writes(store):
        view.say(f"{found} writes of earlier searches had waited for this store and are done first", "yellow")
    if store.moved_from is not None:
        view.say(f"the store was moved here from {store.moved_from}; its artifacts' addresses follow", "yellow")
    return World(plan, journal, executor, agent, view, stop, replay)


def _result(plan: "Plan", store: "RunStore", run_id: str, found: "SearchResult") -> "Result":
    from lamdagent.api.result import Result
    from lamdagent.api.trials import Trials

    return Result(
        search_run_id=store.resolve_run_id(run_id),
        tracking_uri=store.uri,
        experiment=store.experiment,
        experiment_id=store.experiment_id,
        champion=found.champion,
        promotions=found.promotions,
        history=Trials(found.history, plan.tasks),
        registered=found.registered,
        reason=found.reason,
    )
