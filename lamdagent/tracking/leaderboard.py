"""A search's leaderboard in MLflow's own UI: a link to its runs, best first, with the columns that matter."""

import json
from collections.abc import Sequence

from mlflow import MlflowClient

from lamdagent.tracking.schema import COST_SECONDS, PARENT_RUN, SCORE, SCORE_STDERR, TASK_PREFIX, TEST_PREFIX

VIEW_TAG = "mlflow.sharedViewState."
"""Experiment tag in which MLflow's UI keeps a shared view, by its key; ours are keyed by the search run's id."""


def leaderboard_path(experiment_id: str, search_run_id: str) -> str:
    """Path in MLflow's UI, from `#` on, so that it works on every server and under every prefix."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={search_run_id}"


def save_leaderboard(client: MlflowClient, experiment_id: str, search_run_id: str, tasks: Sequence[str]) -> None:
    """Keep the view that `leaderboard_path` opens. Without it the path shows all runs of the experiment."""
    metrics = [SCORE, SCORE_STDERR, *(TASK_PREFIX + task for task in tasks), TEST_PREFIX + SCORE, COST_SECONDS]
    params = ["action", "model", "models", "dataset"]
    view = {
        "searchFilter": f"tags.`{PARENT_RUN}` = '{search_run_id}'",
        "orderByKey": f"metrics.`{SCORE}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [f"metrics.`{key}`" for key in metrics] + [f"params.`{key}`" for key in params],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "FIRST_20_RUNS",
        "runsVisibilityMap": {},
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "hideEmptyCharts": True,
    }
    client.set_experiment_tag(experiment_id, VIEW_TAG + search_run_id, json.dumps(view, separators=(",", ":")))
