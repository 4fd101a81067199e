"""The run context provider, found by MLflow through its entry point."""

import mlflow
import pytest


@pytest.fixture
def store(tmp_path):
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("plugin")
    yield
    mlflow.set_tracking_uri(None)


def test_what_is_logged_inside_an_action_is_nested_under_its_run(store, monkeypatch):
    with mlflow.start_run() as action:
        pass
    monkeypatch.setenv("LAMDAGENT_RUN_ID", action.info.run_id)
    with mlflow.start_run() as inside:
        pass
    tags = mlflow.get_run(inside.info.run_id).data.tags
    assert tags["mlflow.parentRunId"] == tags["lamdagent.action_run"] == action.info.run_id


def test_outside_an_action_nothing_changes(store, monkeypatch):
    monkeypatch.delenv("LAMDAGENT_RUN_ID", raising=False)
    with mlflow.start_run() as run:
        pass
    assert not [key for key in mlflow.get_run(run.info.run_id).data.tags if key.startswith("lamdagent")]
