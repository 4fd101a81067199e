"""What was measured on the same weights and the same items is taken from the store: only what is new is measured.

And the finalists again with other seeds, in the same store."""

import json
from pathlib import Path

import pytest
from mlflow.entities import Run

from tests.searches import client_of, of_kind, runs_of, search, tag

pytestmark = pytest.mark.slow
AMOUNTS = "actions.nudge.hyperparameters.amount=[0.1,0.2]"
STUNTS = ("+experiment=stunts", "execution=inline", "budget.trials=2", "search.test_top=2", AMOUNTS)
SPELL = ("+task=pico_spell", "tasks.repeat.weight=0.3")


def newest(runs: list[Run]) -> list[Run]:
    searches = of_kind(runs, "search")
    return [run for run in runs if run.data.tags.get("mlflow.parentRunId") == searches[-1].info.run_id]


def samples(folder: Path, run: Run, path: str = "samples") -> set[str]:
    found = client_of(folder).list_artifacts(run.info.run_id, path)
    return {Path(file.path).name for file in found if not file.is_dir}


def test_a_new_task_is_measured_on_the_weights_that_are_there(tmp_path: Path) -> None:
    for arguments in (STUNTS, (*STUNTS, *SPELL, "champion.seeds=1", "champion.beyond=0")):
        code, output = search(tmp_path, *arguments)
        assert code == 0, output
    runs = runs_of(tmp_path, "stunts")
    first = {tag(run, "fingerprint"): run for run in runs if tag(run, "kind") != "search" and run not in newest(runs)}
    again = [run for run in newest(runs) if tag(run, "policy") != "repeat"]
    assert {tag(run, "fingerprint") for run in again} == set(first) and len(first) == 3
    for run in again:
        old, metrics = first[tag(run, "fingerprint")], run.data.metrics
        assert metrics["task.repeat"] == old.data.metrics["task.repeat"] and "task.spell" in metrics
        assert metrics["test.repeat"] == old.data.metrics["test.repeat"] and "test.spell" in metrics
        assert samples(tmp_path, run) == samples(tmp_path, run, "samples/test") == {"spell.jsonl"}
        assert metrics["score"] == pytest.approx(0.3 * metrics["task.repeat"] + 0.7 * metrics["task.spell"])
    for run in of_kind(again, "action"):
        old = first[tag(run, "fingerprint")]
        assert tag(run, "reused_from") == old.info.run_id and "cost.action_seconds" not in run.data.metrics
        assert tag(run, "weights") == f"runs:/{old.info.run_id}/model" and tag(run, "weights_sha256")
        assert json.loads(tag(run, "pairing")) == {"search": "paired", "test": "paired"}, "its old samples are read"

    repeats = [run for run in newest(runs) if run not in again]
    assert [run.data.params["seed"] for run in repeats] == ["1", "1"]
    of = [run for run in runs if "seeds.mean" in run.data.metrics]
    assert len(of) == 2 and of == of_kind(again, "action"), "finalists are never repeats"
    assert {run.data.metrics["seeds.mean"] for run in of} == {run.data.metrics["score"] for run in repeats}
    assert output.count("with further seeds: ") == 2 and not [run for run in repeats if tag(run, "state")]
