"""Everything but the store and its artifacts is lost, and they lie on another machine, in another folder."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts

from lamdagent.tracking.searches import start_search
from lamdagent.tracking.store import RunStore
from tests.searches import begin, end, fingerprints, of_kind, runs_of, tag

SMOKE = ("+experiment=smoke", "search.test_top=1", "budget.trials=3", "execution=inline")


@pytest.mark.slow
def test_a_search_goes_on_from_its_store_and_artifacts_alone(tmp_path: Path) -> None:
    before, here = tmp_path / "before", tmp_path / "here"
    before.mkdir()
    code, output = end(begin(before, *SMOKE, LAMDAGENT_CACHE=str(tmp_path / "cache")))
    assert code == 0, output
    done = fingerprints(runs_of(before, "lamdagent-smoke"))
    here.mkdir()
    shutil.copy(before / "mlflow.db", here)
    shutil.copytree(before / "mlruns", here / "mlruns")
    shutil.rmtree(before)
    shutil.rmtree(tmp_path / "cache")

    code, output = end(begin(here, *SMOKE, LAMDAGENT_CACHE=str(tmp_path / "new cache")))
    assert code == 0, output
    assert f"moved here from {before}" in output
    runs = runs_of(here, "lamdagent-smoke")
    every = fingerprints(runs)
    assert every[:3] == done and len(set(every)) == len(every) == 6, "it goes on, and nothing runs twice"
    assert len(of_kind(runs, "base")) == 1
    assert not before.exists(), "nothing is written to where it was"
    for run in of_kind(runs, "action"):
        local = Path(download_artifacts(run_id=run.info.run_id, tracking_uri=f"sqlite:///{here}/mlflow.db"))
        assert local.is_relative_to(here) and (local / "model" / "model.safetensors").is_file(), tag(run, "action")


def test_one_move_moves_all_that_has_moved(tmp_path: Path) -> None:
    stores = [RunStore(f"sqlite:///{tmp_path}/one/mlflow.db", name) for name in ("one", "elsewhere's")]
    for store in stores:
        store.update(start_search(store, "s", "a search", {}, ""), texts={"a.txt": "text"})
        assert store.moved_from is None
    stores[0].client.create_experiment("foreign", "/nowhere/mlruns/foreign")
    (tmp_path / "one").rename(tmp_path / "two")

    moved = RunStore(f"sqlite:///{tmp_path}/two/mlflow.db", "one")
    assert moved.moved_from == tmp_path / "one"
    assert RunStore(moved.uri, "elsewhere's").moved_from is None, "it has followed already"
    with sqlite3.connect(tmp_path / "two" / "mlflow.db") as database:
        roots = dict(database.execute("SELECT name, artifact_location FROM experiments"))
        runs = [uri for (uri,) in database.execute("SELECT artifact_uri FROM runs")]
    assert roots["one"] == f"{tmp_path}/two/mlruns/one"
    assert roots["elsewhere's"].startswith(f"{tmp_path}/two/mlruns/")
    assert roots["foreign"] == "/nowhere/mlruns/foreign"
    assert len(runs) == 2 and all((Path(uri) / "a.txt").read_text() == "text" for uri in runs)
