"""`python -m lamdagent [search] +experiment=NAME`: from a composed configuration to a finished search."""

import os
from typing import TYPE_CHECKING

from lamdagent.commands import Command, Request

if TYPE_CHECKING:
    from lamdagent.api.result import Result
    from lamdagent.loop.terminal import Terminal
    from lamdagent.planning.plan import Plan


def run(request: Request) -> None:
    """Check everything, then search (or print the plan, with `dry_run=true`).

    Raises:
        UserError: before any compute, with every fault that can be told by then.
    """
    from lamdagent.api.searching import plan_of
    from lamdagent.loop.terminal import Terminal

    view = Terminal()
    view.say("lamdagent: checking models, data, actions and tasks before anything runs")
    plan = plan_of(request.composed.node)
    if plan.config.dry_run:
        from lamdagent.commands.dry_run import show

        show(plan, view)
        return
    from lamdagent.api.session import carry_out

    report(carry_out(plan, request.composed.yaml, view).result, plan, view)


def report(result: "Result", plan: "Plan", view: "Terminal") -> None:
    """Say how it ended: leaderboard, champion, and where to look at it all."""
    from lamdagent.report.leaderboard import SHOWN

    trials = result.history
    view.leaderboard(trials.best[:SHOWN], trials.history, trials.tasks, trials.base)
    for promotion in result.promotions:
        assert promotion.trial.model is not None
        view.say(f"{promotion.state}  {promotion.trial.model.name}: {promotion.why}")
    if failed := len(trials.history.failed):
        view.say(f"{failed} actions failed; the reasons are on their runs")
    if result.champion is not None and result.champion.kind == "base":
        rule = f"champion.beyond={plan.config.champion.beyond:g}"
        view.say(f"no gain on the search split is beyond the noise ({rule}): the base stays the champion", "yellow")
    elif result.registered is not None:
        view.say(result.registered, "green")
    view.say(_where(result))


def _where(result: "Result") -> str:
    """How to open the leaderboard in MLflow."""
    uri = result.address
    if uri.startswith("http"):
        return f"look at it: {uri}/{result.page}"
    store = "" if uri == f"sqlite:///{os.getcwd()}/mlflow.db" else f" --backend-store-uri {uri}"
    return f"look at it: mlflow ui{store}\n  and open http://127.0.0.1:5000/{result.page}"


COMMAND = Command("search", "", run)
