"""A store made by others' tools alone seeds a search: it is explained, it steers, its models are merged with ours."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests import forkserver
from tests.searches import CONF, ROOT, client_of, of_kind, runs_of, search, streams, tag

pytestmark = pytest.mark.slow
THEIRS = ("their-trainings", "their-models", "their-sweep")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, pico_folder: str) -> Path:
    """A folder with their store, and with the trainings' folders beside it."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "pico").symlink_to(pico_folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "tests" / "others.py"), "pico"]
    done = forkserver.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def their_runs(client: MlflowClient) -> list[Run]:
    ids = [client.get_experiment_by_name(name).experiment_id for name in THEIRS]
    return sorted(client.search_runs(ids, max_results=1000), key=lambda run: str(run.info.run_id))


def snapshot(folder: Path) -> list[Any]:
    """All that can be seen of their runs, models and files."""
    client = client_of(folder)
    runs = [client.get_run(run.info.run_id).to_dictionary() for run in their_runs(client)]
    ids = [client.get_experiment_by_name(name).experiment_id for name in THEIRS]
    models = sorted(str(model.to_dictionary()) for model in client.search_logged_models(ids))
    roots = [folder / "mlruns" / i for i in ids] + list(folder.glob("sft-*"))
    files = sorted(path for root in roots for path in root.rglob("*") if path.is_file())
    return [runs, models, [(str(f), f.stat().st_mtime_ns, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]]


def history(folder: Path, *arguments: str) -> tuple[int, str, str]:
    return streams(folder, "history", *CONF, *arguments)


def first_action(runs: list[Run]) -> Run:
    return of_kind(runs, "action")[0]


def test_their_experiments_are_listed_with_sources_to_paste(store: Path) -> None:
    code, out, err = history(store, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert {row["name"]: row["runs"] for row in found["experiments"] if row["runs"]} == {
        "their-trainings": 2,
        "their-models": 1,
        "their-sweep": 20,
    }
    sources = {s["experiments"][0]: s for s in found["suggested"]["memory"]["sources"].values()}
    assert [sources[name]["mapping"] for name in THEIRS] == ["trl", "transformers", "params"]
    assert sources["their-sweep"]["action"] == "params.method"
    assert sources["their-sweep"]["hyperparameters"] == {"learning_rate": "params.lr"}
    assert next(iter(sources["their-sweep"]["scores"].values())) == {"metric": "accuracy", "low": 0.0, "high": 100.0}
    code, out, err = history(store)
    assert code == 0 and "their-sweep" in out and "params.method" in out, err


def test_history_explains_every_run(store: Path) -> None:
    before = snapshot(store)
    code, out, err = history(store, "+experiment=seeded", "--json")
    assert code == 0, err
    found = json.loads(out)["sources"]
    counts = {
        name: [s[key] for key in ("runs", "understood", "scored", "failed", "models")] for name, s in found.items()
    }
    assert counts == {"trl": [2, 2, 2, 0, 0], "transformers": [1, 1, 0, 0, 1], "sweep": [20, 18, 16, 2, 0]}
    for source in found.values():
        for reading in source["readings"]:
            assert bool(reading["skipped"]) != ("action" in reading)
    assert [r["action"] for r in found["trl"]["readings"]] == ["sft_full"] * 2
    assert [r["hyperparameters"] for r in found["trl"]["readings"]] == [
        {"learning_rate": 0.001},
        {"learning_rate": 0.01},
    ]
    skipped = {r["name"]: r["skipped"] for r in found["sweep"]["readings"] if r["skipped"]}
    assert "prune" in skipped["sweep 0"] and "stopped" in skipped["sweep 7"]
    code, out, err = history(store, "+experiment=seeded")
    assert code == 0 and "1 models join the pool" in out and "sweep: 20 runs, 18 understood" in out, err
    assert snapshot(store) == before
    assert client_of(store).get_experiment_by_name("seeded") is None, "a dry run makes no experiment"


def test_wrong_sources_end_with_2_and_every_fault(store: Path) -> None:
    wrong = ["memory.sources.trl.experiments=[their-training]", "memory.sources.sweep.filter='lr about 1'"]
    code, out, err = history(store, "+experiment=seeded", *wrong)
    assert code == 2 and out == "" and "Traceback" not in err
    assert "did you mean one of their-trainings" in err and "memory.sources.sweep.filter" in err
    code, output = search(store, "+experiment=seeded", "tracking.experiment=unused", wrong[0])
    assert code == 2 and "did you mean one of their-trainings" in output and "Traceback" not in output


def test_it_seeds_a_search(store: Path) -> None:
    before = snapshot(store)
    code, output = search(store, "+experiment=seeded")
    assert code == 0, output
    assert "memory: 21 runs of others are understood, 1 of their models join" in output
    seeded = runs_of(store, "seeded")
    code, output = search(store, "+experiment=seeded", "~memory.sources", "tracking.experiment=cold", "budget.trials=1")
    assert code == 0, output
    warm, cold = first_action(seeded), first_action(runs_of(store, "cold"))
    assert tag(cold, "action") == "sft_full" and cold.data.params["learning_rate"] == "0.003"
    assert tag(warm, "action") == "merge_linear", "fine-tuning has been tried, by others"
    check_lineage(client_of(store), seeded, warm)
    assert snapshot(store) == before, "others' runs are never written to"


def check_lineage(client: MlflowClient, runs: list[Run], merge: Run) -> None:
    """Both parents in tag, model inputs and description: our base and their model; the champion is one of ours."""
    assert merge.info.status == "FINISHED", merge.data.tags
    theirs = next(run for run in their_runs(client) if run.info.run_name == "the good one")
    theirs = client.get_run(theirs.info.run_id)
    (base,) = of_kind(runs, "base")
    assert set(json.loads(tag(merge, "parents"))) == {base.info.run_id, theirs.info.run_id}
    inputs = {model.model_id for model in merge.inputs.model_inputs}
    assert inputs == {run.outputs.model_outputs[0].model_id for run in (base, theirs)}
    for run in (base, theirs):
        assert (
            f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" in merge.data.tags["mlflow.note.content"]
        )
    (whole,) = of_kind(runs, "search")
    best = max(run.data.metrics["score"] for run in [*of_kind(runs, "base"), *of_kind(runs, "action")])
    assert whole.data.metrics["score"] == best < 0.9, "the best of theirs, 0.91, is no best of ours"
    tested = [run.info.run_id for run in their_runs(client) if any("test" in key for key in run.data.metrics)]
    assert tested == []
    recipe = Path(client.download_artifacts(merge.info.run_id, "recipe.yaml")).read_text()
    assert f"models:/{theirs.outputs.model_outputs[0].model_id}" in recipe
    memory = Path(client.download_artifacts(merge.info.run_id, "memory.md")).read_text()
    assert "Others' runs" in memory and "from sweep: " in memory and "not scored, may be an input" in memory
