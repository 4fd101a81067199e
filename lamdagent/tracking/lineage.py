"""Lineage of runs, recorded three times: our tag, MLflow's model inputs and outputs, links for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, LoggedModelStatus

from lamdagent.text import without_login
from lamdagent.tracking.run_info import RunInfo
from lamdagent.tracking.schema import WEIGHTS


@dataclass(frozen=True)
class ModelEntry:
    """The model that a run made (or stands for), as it appears among MLflow's models."""

    name: str
    """Its neutral name."""
    weights: str
    """`runs:/<run id>/model`, or the user's own source for a base model, whose weights are not copied."""
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def link_parents(client: MlflowClient, run_id: str, parents: Sequence[RunInfo]) -> None:
    """Make the parents' models inputs of the run; a foreign run without a LoggedModel stays in tag and description."""
    ids = [parent.model_id for parent in parents if parent.model_id]
    if ids:
        client.log_inputs(run_id, models=[LoggedModelInput(model_id) for model_id in dict.fromkeys(ids)])


def add_model(client: MlflowClient, run: RunInfo, entry: ModelEntry, *, again: bool = False) -> str:
    """Make `entry` an output of the run and return its id; a second call returns the first one's.

    `again`: an earlier call may have been cut off between the model and its link, so the model is looked for.
    """
    if run.model_id:
        return run.model_id
    where = f"source_run_id = '{run.run_id}'"
    cut_off = client.search_logged_models([run.experiment_id], where, max_results=1) if again else []
    model = next(iter(cut_off), None) or client.create_logged_model(
        run.experiment_id,
        name=entry.name,
        source_run_id=run.run_id,
        tags={**entry.tags, WEIGHTS: entry.weights},
        params={key: str(value) for key, value in entry.params.items()},
        model_type="lamdagent",
    )
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def describe(parents: Sequence[RunInfo], text: str) -> str:
    """The run's description: `text` and a link to every parent that MLflow's UI opens."""
    if not parents:
        return text
    return f"{text}\n\n**Parents:** {' + '.join(link(parent) for parent in parents)}".strip()


def runs_page(uri: str, experiment_id: str) -> str:
    """Address of a run's page up to the run id; of a store without a server, the path in whatever UI shows it."""
    return f"{server_page(uri)}#/experiments/{experiment_id}/runs/"


def server_page(uri: str) -> str:
    """Address of MLflow's UI when the store is a server, without a login; empty for a database."""
    return without_login(uri).rstrip("/") + "/" if uri.startswith("http") else ""


def link(run: RunInfo) -> str:
    """Markdown link to a run's page, good on every server and under every path prefix."""
    name = "".join(letter for letter in run.name or run.run_id if letter not in "[]()<>\\`\n")
    return f"[{name}](#/experiments/{run.experiment_id}/runs/{run.run_id})"
