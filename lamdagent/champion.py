"""The winner goes to the Model Registry, with a card that says where it comes from and how good it is."""

import re

from lamdagent.execution.executor import Executor, Failed, Job, Update
from lamdagent.pipeline import chain, figure, given_by
from lamdagent.plan import Plan
from lamdagent.tracking.journal import Journal
from lamdagent.tracking.schema import CHAMPION_ALIAS
from lamdagent.trial import History, Trial

REGISTER_S = 3600.0


def register(champion: Trial, history: History, journal: Journal, executor: Executor, plan: Plan) -> str:
    """Register the champion's weights; one line for the user, also when the registry refused."""
    assert champion.model is not None
    name = plan.config.tracking.registered_model or re.sub(r"[/:]+", "-", plan.config.tracking.experiment)
    arguments = {
        "uri": journal.store.uri,
        "run_id": champion.run_id,
        "folder": journal.folder(champion.model),
        "name": name,
        "description": card(champion, history, plan),
    }
    job = Job(f"register {champion.run_id}", "lamdagent.tracking.champion:register", arguments, REGISTER_S)
    executor.submit(job)
    while (event := executor.next_event(5.0)) is None or isinstance(event, Update):
        continue
    if isinstance(event, Failed):
        return f"champion: {champion.model.name}; the registry refused it: {event.reason}"
    return f"champion: {champion.model.name}, registered as models:/{name}@{CHAMPION_ALIAS} (version {event.value})"


def card(champion: Trial, history: History, plan: Plan) -> str:
    """The model card: pipeline, scores against the base, data and licences, in Markdown."""
    assert champion.model is not None
    base = next((t for t in history.scored if t.kind == "base"), None)
    rows = ["| | this model | base |", "|---|---|---|"]
    rows.append(f"| score, search split | {figure(champion.score)} | {figure(base.score if base else None)} |")
    rows.append(f"| score, test split | {figure(champion.test_score)} | {figure(base.test_score if base else None)} |")
    for task in plan.tasks:
        ours, theirs = champion.test_scores.get(task.name), base.test_scores.get(task.name) if base else None
        rows.append(f"| {task.name} ({task.metric}), test split | {figure(ours)} | {figure(theirs)} |")
    data = [f"- {d.name}: {d.description} ({d.rows} rows, licence {d.license or 'not stated'})" for d in plan.datasets]
    models = [f"- {name}: {m.source} (licence {m.license or 'not stated'})" for name, m in plan.config.models.items()]
    others = ", ".join(sorted(given_by(champion.model, history)))
    seen = f"It descends from models of others ({others}); nothing here can tell whether they have seen test items."
    parts = (
        f"# {champion.model.name}",
        f"Pipeline: `{chain(champion.model, history)}`",
        "\n".join(rows),
        "Errors are standard errors. The test split steered nothing; the search split did, so its figures flatter.",
        *([seen] if others else []),
        "## Initial models\n" + "\n".join(models),
        "## Datasets of the search\n" + "\n".join(data),
        f"Run `{champion.run_id}` holds `recipe.yaml`, the weights and all parents.",
    )
    return "\n\n".join(parts)
