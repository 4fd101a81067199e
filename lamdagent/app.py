"""The application: from a composed configuration to a finished search, or to a plan on paper."""

import functools
import os
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from lamdagent.config import Config, read
from lamdagent.errors import UserError
from lamdagent.execution.hush import hush
from lamdagent.interruption import Interruption
from lamdagent.uncollected import uncollected

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamdagent.execution.executor import Executor
    from lamdagent.plan import Plan
    from lamdagent.search import Result, Search
    from lamdagent.terminal import Terminal
    from lamdagent.tracking.journal import Journal
    from lamdagent.trial import History

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
    from lamdagent.terminal import Terminal, standard_output

    standard_output().print("lamdagent: checking models, data, actions and tasks before anything runs")
    from lamdagent.plan import make_plan

    plan = make_plan(config)
    if config.dry_run:
        from lamdagent.dry_run import show

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
            from lamdagent.search import Search
            from lamdagent.selection.agent import make_agent
            from lamdagent.tracking.connect import hide_password
            from lamdagent.tracking.journal import Journal
            from lamdagent.tracking.store import Store
            from lamdagent.tracking.traces import traced_call

        store = Store(plan.config.tracking.uri, plan.config.tracking.experiment)

        journal = Journal(store, plan, hide_password(config_yaml))
        agent = make_agent(plan.config, plan.tasks, functools.partial(traced_call, store))
        view.say(f"lamdagent: {plan.replay.title if plan.replay else agent.name}")
        view.say(f"store: {hide_password(store.uri)}, experiment {store.experiment}")
        if found := store.courier.take_over():
            view.say(f"{found} writes of earlier searches had waited for this store and are done first", "yellow")
        if store.moved_from is not None:
            view.say(f"the store was moved here from {store.moved_from}; its artifacts' addresses follow", "yellow")
        search = Search(plan, journal, executor, agent, view, stop)
        result = search.run()
        if conclude is not None:
            conclude(search, result.history)
        _conclude(plan, result, journal, view)
        if not search.settled():
            count = len(store.courier.waiting)
            view.say(f"{count} writes wait in {store.courier.folder}; the next start writes them", "yellow")
    finally:
        executor.close()


def make_executor(config: Config) -> "Executor":
    """The executor that `execution.kind` names."""
    if config.execution.kind == "inline":
        from lamdagent.execution.inline import InlineExecutor

        return InlineExecutor()
    if config.execution.kind == "ray":
        from lamdagent.execution.ray import RayExecutor

        return RayExecutor(config.execution)
    from lamdagent.execution.local import LocalExecutor

    return LocalExecutor()


def _conclude(plan: "Plan", result: "Result", journal: "Journal", view: "Terminal") -> None:
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
    from lamdagent.tracking.connect import hide_password
    from lamdagent.tracking.leaderboard import leaderboard_path

    uri = hide_password(journal.store.uri)
    page = leaderboard_path(journal.store.experiment_id, journal.store.real(journal.search_run_id))
    where = "" if uri == f"sqlite:///{os.getcwd()}/mlflow.db" else f" --backend-store-uri {uri}"
    if uri.startswith("http"):
        view.say(f"look at it: {uri}/{page}")
    else:
        view.say(f"look at it: mlflow ui{where}\n  and open http://127.0.0.1:5000/{page}")


def quiet_libraries() -> None:
    """Settings that libraries read at their import, here and in the worker."""
    hush()
    for key, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }.items():
        os.environ.setdefault(key, value)
