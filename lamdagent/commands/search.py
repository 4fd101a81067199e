"""The application: from a composed configuration to a finished search, or to a plan on paper."""

import functools
import os
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from lamdagent.config import read
from lamdagent.errors import UserError
from lamdagent.execution.registry import make_executor
from lamdagent.libraries import quiet_libraries, uncollected
from lamdagent.loop.shutdown import Interruption
from lamdagent.text import hide_passwords

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamdagent.loop.run_writer import RunWriter
    from lamdagent.loop.search import Result, Search
    from lamdagent.loop.terminal import Terminal
    from lamdagent.memory.trial import History
    from lamdagent.planning.plan import Plan

    Conclude = Callable[[Search, History], None]


def start(node: DictConfig) -> None:
    """Check everything, then search (or print the plan, with `dry_run=true`).

    Raises:
        UserError: before any compute, with every fault that can be told by then.
    """
    quiet_libraries()
    config = read(node)
    if config.base is not None:
        raise UserError(
            f"base: got {config.base!r}, but a search starts from `models`; replay and transfer have a base"
        )
    from lamdagent.loop.terminal import Terminal, standard_output

    standard_output().print("lamdagent: checking models, data, actions and tasks before anything runs")
    from lamdagent.planning.plan import make_plan

    plan = make_plan(config)
    if config.dry_run:
        from lamdagent.commands.dry_run import show

        show(plan)
        return
    carry_out(plan, OmegaConf.to_yaml(node, resolve=True), Terminal())


def carry_out(plan: "Plan", config_yaml: str, view: "Terminal", conclude: "Conclude | None" = None) -> None:
    """The search or replay of `plan`, from the opened store to the last word; `conclude` has a word before that."""
    view.say_warnings()
    for warning in plan.findings.warnings:
        view.say(warning, "yellow")
    try:
        _search(plan, config_yaml, view, conclude)
    finally:
        view.close()


def _search(plan: "Plan", config_yaml: str, view: "Terminal", conclude: "Conclude | None") -> None:
    stop = Interruption()
    stop.listen()
    executor = make_executor(plan.config)  # its worker imports torch while MLflow is imported and the store opened
    try:
        with uncollected():  # not for good: what MLflow opens would stay open, and SQLite's log beside its file
            from lamdagent.loop.run_writer import RunWriter
            from lamdagent.loop.search import Search
            from lamdagent.selection.registry import make_agent
            from lamdagent.tracking.searches import recover_writes
            from lamdagent.tracking.store import RunStore
            from lamdagent.tracking.traces import traced_call

        store = RunStore(plan.config.tracking.uri, plan.config.tracking.experiment)

        journal = RunWriter(store, plan, hide_passwords(config_yaml))
        agent = make_agent(plan.config, plan.tasks, functools.partial(traced_call, store))
        view.say(f"lamdagent: {plan.replay.title if plan.replay else agent.name}")
        view.say(f"store: {hide_passwords(store.uri)}, experiment {store.experiment}")
        if found := recover_writes(store):
            view.say(f"{found} writes of earlier searches had waited for this store and are done first", "yellow")
        if store.moved_from is not None:
            view.say(f"the store was moved here from {store.moved_from}; its artifacts' addresses follow", "yellow")
        search = Search(plan, journal, executor, agent, view, stop)
        result = search.run()
        if conclude is not None:
            conclude(search, result.history)
        _conclude(plan, result, journal, view)
        if not search.settled():
            left = store.backlog
            view.say(f"{left.writes} writes wait in {left.folder}; the next start writes them", "yellow")
    finally:
        executor.close()


def _conclude(plan: "Plan", result: "Result", journal: "RunWriter", view: "Terminal") -> None:
    """Table, champion, and how to look at it all."""
    history = result.history
    view.table(history.scored[:12], history, plan.tasks, history.base())
    for standing in result.standings:
        assert standing.trial.model is not None
        view.say(f"{standing.state}  {standing.trial.model.name}: {standing.why}")
    if failed := len(history.failed):
        view.say(f"{failed} actions failed; the reasons are on their runs")
    if result.champion is not None and result.champion.kind == "base":
        rule = f"champion.beyond={plan.config.champion.beyond:g}"
        view.say(f"no gain on the search split is beyond the noise ({rule}): the base stays the champion", "yellow")
    elif result.champion is not None:
        view.say(result.registered, "green")
    from lamdagent.tracking.leaderboard import leaderboard_path

    uri = hide_passwords(journal.store.uri)
    page = leaderboard_path(journal.store.experiment_id, journal.store.resolve_run_id(journal.session.run_id))
    where = "" if uri == f"sqlite:///{os.getcwd()}/mlflow.db" else f" --backend-store-uri {uri}"
    if uri.startswith("http"):
        view.say(f"look at it: {uri}/{page}")
    else:
        view.say(f"look at it: mlflow ui{where}\n  and open http://127.0.0.1:5000/{page}")
