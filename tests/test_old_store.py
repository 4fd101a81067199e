"""A store that version 6911219 wrote is read, gone on with and rebuilt by today's code; see data/old_store/README.md.

Only the command line, MLflow and files are used: where the code keeps its modules says nothing here.
"""

import hashlib
import json
import shutil
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.data.old_store.make import CACHE, CONF, HERE, KEPT, machine, understood
from tests.searches import lamdagent

pytestmark = pytest.mark.slow
EXPECTED: dict[str, Any] = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
CHAMPION = EXPECTED["champions"]["old-all"]
"""A merge of two trainings; its weights were deleted."""
ENDED = ("old-all", "old-made", "old-ladder", "old-seeded")
AWAY = "old-outbox"
"""The experiment of the search whose store was away."""


@dataclass
class Old:
    """The old store in a folder that it was not written in."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def outbox(self) -> Path:
        """Of the experiment AWAY: its name says which store and experiment the changes in it are for."""
        key = hashlib.sha256(f"{self.uri} {AWAY}".encode()).hexdigest()[:12]
        return self.folder / "cache" / "outbox" / f"{AWAY}-{key}"

    @cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def lamdagent(self, *words: str) -> str:
        """What the command says; it has to succeed."""
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(HERE)  # its own_parts, as it was in PYTHONPATH
            code, said = lamdagent(self.folder, *words, LAMDAGENT_CACHE=str(self.folder / "cache"))
        assert code == 0, said
        return said

    def runs(self, experiment: str, *kinds: str) -> list[Run]:
        """Oldest first."""
        own = self.client.get_experiment_by_name(experiment)
        assert own is not None
        found = self.client.search_runs([own.experiment_id], order_by=["attributes.start_time ASC"])
        return [run for run in found if run.data.tags["lamdagent.kind"] in kinds]

    def unpack(self) -> None:
        with tarfile.open(HERE / "store.tar.xz") as archive:
            archive.extractall(self.folder, filter="data")
        (waiting,) = (self.folder / "outbox").iterdir()
        self.outbox.parent.mkdir(parents=True)
        shutil.move(waiting, self.outbox)
        for file in self.outbox.glob("*/*/change.json"):
            moved = file.read_text("utf-8").replace(f"{CACHE}/outbox/{waiting.name}", str(self.outbox))
            file.write_text(moved, "utf-8")


def expected_ids(experiment: str) -> list[str]:
    """Of the bases and actions that the old code left."""
    kept = EXPECTED["runs"].items()
    return sorted(key for key, run in kept if run["experiment"] == experiment and run["kind"] != "search")


def ids(runs: list[Run]) -> list[str]:
    return sorted(run.info.run_id for run in runs)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Old:
    old = Old(tmp_path_factory.mktemp("old"))
    old.unpack()
    return old


@pytest.fixture(scope="module")
def waited(store: Old) -> list[dict[str, Any]]:
    """What waited for the store, in order."""
    files = sorted(store.outbox.glob("*/*/change.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


@pytest.fixture(scope="module")
def explained(store: Old) -> dict[str, Any]:
    """What `history` says of all runs, before anything is written."""
    return dict(json.loads(store.lamdagent("history", *CONF, "+experiment=old_reader", "--json"))["sources"])


@pytest.fixture(scope="module")
def rebuilt(store: Old, explained: dict[str, Any]) -> str:
    """The champion's weights are there again; what was said."""
    return store.lamdagent("rebuild", CHAMPION, "execution=inline")


@pytest.fixture(scope="module")
def again(store: Old, waited: list[dict[str, Any]], rebuilt: str) -> str:
    """Every search started again, one after the other in one process; what was said."""
    names = ",".join(name.replace("-", "_") for name in (*ENDED, AWAY))
    return store.lamdagent(*CONF, "--multirun", f"+experiment={names}", "execution=inline")


def test_history_reads_every_trial(explained: dict[str, Any]) -> None:
    found = {name: {row["run_id"]: understood(row) for row in told["readings"]} for name, told in explained.items()}
    assert found == EXPECTED["history"]


def test_the_champion_is_made_again(store: Old, rebuilt: str) -> None:
    run = store.client.get_run(CHAMPION)
    proofs = ["the same weights, by checksum", "other weights, with scores within noise"]
    assert any(proof in rebuilt for proof in proofs[: 1 if machine() == EXPECTED["made_on"] else 2]), rebuilt
    assert not run.data.tags["lamdagent.pruned"]
    folder = Path(run.info.artifact_uri)
    assert folder.is_relative_to(store.folder) and (folder / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("experiment", ENDED)
def test_a_search_that_is_started_again_runs_nothing(store: Old, again: str, experiment: str) -> None:
    """Its space is finite: with another fingerprint an action would be new, with a task's a base would be scored."""
    assert ids(store.runs(experiment, "base", "action")) == expected_ids(experiment), again
    newest = store.runs(experiment, "search")[-1]
    assert newest.info.status == "FINISHED" and newest.info.run_id not in EXPECTED["runs"]
    assert newest.data.tags["lamdagent.champion"] == EXPECTED["champions"][experiment]


def test_a_replay_finds_its_steps_made(store: Old, again: str) -> None:
    said = store.lamdagent("replay", CHAMPION, "data_fraction=0.5", "execution=inline")
    assert ids(store.runs("old-all", "base", "action")) == expected_ids("old-all"), said
    (made,) = [key for key, run in EXPECTED["runs"].items() if run["tags"]["replay_of"] == CHAMPION]
    assert f"replayed  {CHAMPION}" in said and made in said


def test_what_waited_for_the_store_arrives(store: Old, waited: list[dict[str, Any]], again: str) -> None:
    """And the search that was killed goes on: the action counts, its weights are tested, it becomes the champion."""
    (opened,) = [change for change in waited if change["new"]]
    (ended,) = [change for change in waited if change["status"]]
    (run,) = store.runs(AWAY, "action")
    assert ids(store.runs(AWAY, "base")) == expected_ids(AWAY), again
    assert run.info.status == ended["status"] == "FINISHED" and run.data.params == opened["new"]["params"]
    tags = {key: value for key, value in (opened["tags"] | ended["tags"]).items() if "pending" not in value}
    left = ("lamdagent.owner", "lamdagent.claim", "mlflow.note.content")
    assert {key: run.data.tags[key] for key in tags if key not in left} == {k: tags[k] for k in tags if k not in left}
    assert run.data.metrics.items() >= ended["metrics"].items()
    curves: dict[str, list[tuple[int, float]]] = {key: [] for key, *_ in ended["curves"]}
    for key, value, step, _ in ended["curves"]:
        curves[key].append((step, value))
    run_id = run.info.run_id
    assert curves == {k: [(m.step, m.value) for m in store.client.get_metric_history(run_id, k)] for k in curves}
    folder = Path(run.info.artifact_uri)
    texts = {name: text for change in waited for name, text in change["texts"].items() if "pending" not in text}
    assert len(texts) >= 2 and all((folder / name).read_text(encoding="utf-8") == texts[name] for name in texts)
    assert (folder / "model" / "model.safetensors").is_file() and list((folder / "samples").glob("*.jsonl"))
    (search,) = store.runs(AWAY, "search")
    assert search.info.status == "FINISHED" and search.info.run_id in EXPECTED["runs"]
    assert search.data.tags["lamdagent.champion"] == run_id and "test.score" in run.data.metrics
    assert not list(store.outbox.glob("*")), "nothing waits any more"


def test_no_word_of_the_old_runs_has_changed(store: Old, again: str) -> None:
    for run_id, kept in EXPECTED["runs"].items():
        run = store.client.get_run(run_id)
        if kept["kind"] != "search":
            tags = {key: run.data.tags.get(f"lamdagent.{key}", "") for key in KEPT}
            same = run_id != CHAMPION or machine() == EXPECTED["made_on"]
            left = () if same else ("weights_sha256",)
            assert {k: tags[k] for k in tags if k not in left} == {
                k: v for k, v in kept["tags"].items() if k not in left
            }
            assert run.info.status == kept["status"] and run.data.params == kept["params"]
        assert run.data.metrics.items() >= kept["metrics"].items()
