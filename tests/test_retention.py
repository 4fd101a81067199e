"""Which weights stay, how they go, and room on the disk before an action starts."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lamdagent.config import Config, RetentionConfig, SearchConfig
from lamdagent.enumeration.space import ActionSpace
from lamdagent.errors import ActionFailed, UserError
from lamdagent.evaluation.task import Score
from lamdagent.execution.disk import Need, in_words, shortage
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.execution.local import LocalExecutor
from lamdagent.loop.action_space import build_action_space
from lamdagent.loop.run_content import tasks_tag
from lamdagent.memory.history import build_history
from lamdagent.memory.trial import History, Trial
from lamdagent.objects.checksum import check, hash_weights
from lamdagent.planning.plan import Plan
from lamdagent.tracking import schema
from lamdagent.tracking.lineage import ModelEntry
from lamdagent.tracking.reading import read_every_run
from lamdagent.tracking.searches import find_search, start_search
from lamdagent.tracking.store import RunStore
from lamdagent.tracking.weights import cached_model
from lamdagent.weights import pruning
from lamdagent.weights.retention import decide
from tests import forkserver
from tests.builders import DATASETS, TASKS, TYPES, base_trial, model, trial_of
from tests.searches import ROOT, of_kind, runs_of, search, tag
from tests.servers import server

STUNTS = ("+experiment=stunts", "execution=inline")


# Which ones stay ---------------------------------------------------------------------------------------------------


def trial(number: int, *parents: int, calls: float = 0.5, style: float = 0.5, status: str = "finished") -> Trial:
    """An action run that made weights of its own; its weighted score is the mean, calls counting three times."""
    inputs = tuple(model(p, depth=1 if p else 0) for p in parents or (0,))
    made = trial_of(next(ActionSpace(TYPES, inputs, DATASETS).actions(TYPES[0])), number, 0.5)
    assert made.model
    scores = {"calls": Score(calls, 0.05), "style": Score(style, 0.05)}
    return replace(
        made,
        status=status,
        model=replace(made.model, location=f"runs:/run{number}/model") if status == "finished" else None,
        scores=scores if status == "finished" else {},
        score=Score(0.75 * calls + 0.25 * style) if status == "finished" else None,
        parents=tuple(f"run{p}" for p in parents or (0,)),
    )


def kept(*trials: Trial, best: int = 1, used: dict[str, str] | None = None) -> dict[str, str]:
    found = decide(History((base_trial(), *trials)), TASKS, best, used or {})
    return {v.trial.run_id: v.kept for v in found}


class TestVerdicts:
    def test_the_best_stay_and_what_they_rest_on(self) -> None:
        found = kept(trial(1, calls=0.2), trial(2, 1, calls=0.9, style=0.9), trial(3, calls=0.3))
        assert list(found) == ["run2", "run3", "run1"], "best first"
        assert found["run2"] == "number 1 of the best 1" and found["run1"].endswith("rests on it")
        assert found["run3"] == ""

    def test_ancestors_of_ancestors_and_every_parent_of_a_merge(self) -> None:
        found = kept(trial(1, calls=0.1), trial(2, 1, calls=0.2), trial(3, calls=0.3), trial(4, 2, 3, calls=0.9))
        assert all(found.values())

    def test_the_best_at_any_mix_of_the_tasks_stay(self) -> None:
        found = kept(trial(1, calls=0.9, style=0.1), trial(2, calls=0.1, style=0.9), trial(3, calls=0.1, style=0.1))
        assert found["run2"] == "on the Pareto front of the tasks" and not found["run3"]

    def test_tested_and_used_ones_and_inputs_of_running_actions_stay(self) -> None:
        best, running = trial(9, calls=1.0, style=1.0), trial(8, 2, status="running")
        tested = replace(trial(1), test_scores={"calls": Score(0.1)})
        found = kept(best, tested, trial(2), trial(3), trial(4), running, used={"run3": "registered as x"})
        assert found["run1"] == "tested" and found["run2"] == "an action that runs now takes it"
        assert found["run3"] == "registered as x" and not found["run4"]

    def test_what_these_tasks_did_not_score_is_not_judged(self) -> None:
        found = kept(trial(1, calls=0.9), replace(trial(2), score=None, scores={}))
        assert found["run2"] == "not scored on these tasks"

    def test_only_weights_of_its_own_are_spoken_of(self) -> None:
        taken_over, gone, failed = trial(2), replace(trial(3), pruned=True), trial(4, status="failed")
        assert taken_over.model
        taken_over = replace(taken_over, model=replace(taken_over.model, location="runs:/another/model"))
        assert list(kept(trial(1, calls=0.9), taken_over, gone, failed)) == ["run1"]


# Checksums ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(pico_folder: str, tmp_path: Path) -> Path:
    """A copy of the pico model, for damage."""
    return Path(shutil.copytree(pico_folder, tmp_path / "copy"))


class TestChecksum:
    def test_is_of_the_tensors_whatever_the_shards(self, pico_folder: str, tmp_path: Path) -> None:
        loaded = AutoModelForCausalLM.from_pretrained(pico_folder, dtype="auto")
        loaded.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
        assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
        assert hash_weights(tmp_path / "shards").sha256 == hash_weights(Path(pico_folder)).sha256
        with torch.no_grad():
            next(loaded.parameters())[0, 0] += 1
        loaded.save_pretrained(tmp_path / "other")
        assert hash_weights(tmp_path / "other").sha256 != hash_weights(Path(pico_folder)).sha256

    def test_a_file_that_was_cut_off_is_found_without_reading_it(self, damaged: Path) -> None:
        weights = damaged / "model.safetensors"
        os.truncate(weights, weights.stat().st_size - 1)
        with pytest.raises(ActionFailed, match="not whole") as caught:
            check(damaged)
        assert caught.value.kind == "bad_model"

    @pytest.mark.parametrize("position", [3, 12, 40])
    def test_a_damaged_header_is_found(self, damaged: Path, position: int) -> None:
        flip(damaged, position)
        with pytest.raises(ActionFailed) as caught:
            check(damaged, seal_of_intact(damaged))
        assert caught.value.kind == "bad_model"

    def test_one_flipped_bit_of_the_weights_is_found_by_the_checksum(self, damaged: Path) -> None:
        known = hash_weights(damaged).sha256
        check(damaged, known)
        flip(damaged, -5)
        check(damaged)
        with pytest.raises(ActionFailed, match="do not have the checksum of their run"):
            check(damaged, known)

    def test_a_missing_shard_is_found(self, damaged: Path) -> None:
        (damaged / "model.safetensors").unlink()
        with pytest.raises(ActionFailed, match="cannot be read"):
            check(damaged)


def flip(folder: Path, position: int) -> None:
    """Another bit at that byte of the weights; negative: from the end."""
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.write_bytes(bytes(content))


def seal_of_intact(folder: Path) -> str:
    """The checksum that any untouched pico model has."""
    from lamdagent import pico

    pico.build(folder.parent / "intact")
    return hash_weights(folder.parent / "intact").sha256


@pytest.mark.slow
def test_a_damaged_input_ends_its_action_and_not_the_worker(damaged: Path, tmp_path: Path) -> None:
    executor = LocalExecutor(())

    def nudged(number: int, checksum: str) -> Finished | Failed:
        arguments = {
            "run_id": "r",
            "function": "tests.stunts:nudge",
            "inputs": {"model": str(damaged), "amount": 0.1},
            "seed": 0,
            "data_fraction": 1.0,
            "tasks": (),
            "batch_size": 1,
            "output": str(tmp_path / f"output-{number}"),
            "checksums": {str(damaged): checksum},
        }
        executor.submit(Job("j", "lamdagent.worker.make:make", arguments, 300))
        while not isinstance(event := executor.next_event(5.0), Finished | Failed):
            pass
        return event

    try:
        known = hash_weights(damaged).sha256
        good = nudged(1, known)
        assert isinstance(good, Finished) and good.value.weights == hash_weights(tmp_path / "output-1" / "model")
        flip(damaged, -5)
        bad = nudged(2, known)
        assert isinstance(bad, Failed) and bad.kind == "bad_model" and "checksum" in bad.reason
        flip(damaged, -5)
        assert isinstance(nudged(3, known), Finished), "the worker goes on"
    finally:
        executor.close()


# How they go -------------------------------------------------------------------------------------------------------


class Contract:
    """Pruning on every kind of store. A subclass gives the fixture `uri`."""

    @pytest.fixture
    def store(
        self, uri: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> RunStore:
        monkeypatch.setenv("LAMDAGENT_CACHE", str(tmp_path / "cache"))
        return RunStore(uri, request.node.name)

    @pytest.fixture
    def runs(self, store: RunStore, pico_folder: str, tmp_path: Path) -> dict[str, str]:
        """Run ids by name: best on its parent, two others, and a foreign run with a model."""
        first = action_run(store, pico_folder, tmp_path, "parent", 0.2)
        found = {"parent": first, "best": action_run(store, pico_folder, tmp_path, "best", 0.9, first)}
        found |= {name: action_run(store, pico_folder, tmp_path, name, 0.3) for name in ("other", "third")}
        found["foreign"] = store.client.create_run(store.experiment_id).info.run_id
        store.client.log_artifacts(found["foreign"], pico_folder, "model")
        return found

    def gone(self, store: RunStore) -> list[Trial]:
        found = pruning.decisions(store, history_of(store), TASKS, CONFIG)
        return [v.trial for v in found if not v.kept]

    def test_what_nothing_needs_goes_and_the_run_stays(self, store: RunStore, runs: dict[str, str]) -> None:
        other = store.weights(f"runs:/{runs['other']}/model")
        hashed = hash_weights(other)
        gone = self.gone(store)
        assert {t.run_id for t in gone} == {runs["other"], runs["third"]}
        freed = pruning.prune(store, gone)
        assert freed == 2 * hashed.bytes
        assert not other.exists() and not cached_model(runs["other"]).exists()
        for name in ("other", "third"):
            run = store.client.get_run(runs[name])
            told = json.loads(run.data.tags[schema.PRUNED])
            assert told["bytes"] == hashed.bytes and told["at"].startswith("20")
            assert run.info.status == "FINISHED" and run.data.metrics["score"] == pytest.approx(0.3)
            assert [f.path for f in store.client.list_artifacts(runs[name])] == ["adapter", "recipe.yaml"]
            with pytest.raises(UserError, match=f"pruned; `python -m lamdagent rebuild {runs[name]}` makes them again"):
                store.weights(f"runs:/{runs[name]}/model")
        for name in ("parent", "best"):
            assert hash_weights(store.weights(f"runs:/{runs[name]}/model")) == hashed
        assert "model/model.safetensors" in [f.path for f in store.client.list_artifacts(runs["foreign"], "model")]
        assert self.gone(store) == [], "once is enough"

    def test_a_pruned_model_is_no_option_any_more(self, store: RunStore, runs: dict[str, str]) -> None:
        pruning.prune(store, self.gone(store))
        history = history_of(store)
        assert len(history.scored) == 4, "its score still tells"
        models = build_action_space(PLAN, [], history).models
        assert {m.run_id for m in models} == {runs["parent"], runs["best"]}

    def test_registered_reused_and_running_ones_stay(
        self, store: RunStore, runs: dict[str, str], tmp_path: Path
    ) -> None:
        store.client.create_registered_model(f"kept {store.experiment}")
        store.client.create_model_version(f"kept {store.experiment}", f"runs:/{runs['other']}/model", runs["other"])
        elsewhere = RunStore(store.uri, f"{store.experiment} elsewhere")
        start = start_search(elsewhere, "s", "s", {}, "")
        tags = {schema.REUSED: runs["third"], schema.FINGERPRINT: "f"}
        run = elsewhere.open(start, "action", "taken over", tags, {})
        elsewhere.finish(run, metrics={})
        found = {v.trial.run_id: v.kept for v in pruning.decisions(store, history_of(store), TASKS, CONFIG)}
        assert found[runs["other"]] == f"registered as kept {store.experiment}"
        assert found[runs["third"]] == "a run of another experiment stands on it"

    def test_what_an_action_has_just_begun_to_use_stays(self, store: RunStore, runs: dict[str, str]) -> None:
        gone = self.gone(store)
        elsewhere = RunStore(store.uri, f"{store.experiment} elsewhere")
        start = start_search(elsewhere, "s", "s", {}, "")
        elsewhere.open(start, "action", "busy", {schema.FINGERPRINT: "f"}, {}, parents=[runs["other"]])
        pruning.prune(store, gone)
        assert store.weights(f"runs:/{runs['other']}/model").is_dir()
        assert not store.client.get_run(runs["other"]).data.tags[schema.PRUNED]
        assert store.client.get_run(runs["third"]).data.tags[schema.PRUNED]


class TestLocal(Contract):
    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.slow
class TestServer(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def uri(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        """Artifacts behind the server: deleted over HTTP."""
        with server(tmp_path_factory.mktemp("server")) as address:
            yield address


CONFIG = Config(search=SearchConfig(test_top=1), retention=RetentionConfig(keep_best=1))
PLAN = Plan(Config(), TYPES, DATASETS, TASKS)


def history_of(store: RunStore) -> History:
    return build_history(read_every_run(store), TYPES, DATASETS, TASKS)


def action_run(store: RunStore, weights: str, work: Path, name: str, score: float, *parents: str) -> str:
    """A finished action with the pico model as its weights, and a small adapter."""
    search_run = find_search(store, "s1") or start_search(store, "s1", "search", {}, "")
    under = search_run if isinstance(search_run, str) else search_run.run_id
    tags = {schema.ACTION: "sft", schema.FINGERPRINT: name * 8, schema.TASKS: tasks_tag(TASKS)}
    run = store.open(under, "action", name, tags | {schema.SLOTS: "{}"}, {}, parents=parents)
    staging = Path(shutil.copytree(weights, work / f"staging-{name}"))
    (work / name).mkdir()
    (work / name / "adapter_config.json").write_text("{}")
    hashed = hash_weights(staging)
    store.finish(
        run,
        metrics={"score": score} | {f"task.{task.name}": score for task in TASKS},
        texts={schema.RECIPE: "steps: []\n"},
        folders={schema.ADAPTER_FOLDER: work / name},
        staging=staging,
        model=ModelEntry(name, f"runs:/{run}/model"),
        tags={
            schema.WEIGHTS: f"runs:/{run}/model",
            schema.WEIGHTS_SHA256: hashed.sha256,
            schema.WEIGHTS_BYTES: str(hashed.bytes),
        },
    )
    return run


# Room on the disk --------------------------------------------------------------------------------------------------


class TestSpace:
    def test_enough_room_says_nothing_and_folders_need_not_exist(self, tmp_path: Path) -> None:
        assert shortage([Need(tmp_path / "a" / "b", 1, "new weights"), Need(tmp_path, 0, "nothing")]) == ""
        assert shortage([]) == ""

    def test_needs_on_one_disk_add_up(self, tmp_path: Path) -> None:
        free = shutil.disk_usage(tmp_path).free
        half = Need(tmp_path, int(free * 0.6), "new weights")
        assert shortage([half]) == ""
        problem = shortage([half, replace(half, folder=tmp_path / "cache", what="fetching model-1")])
        assert "for new weights" in problem and "for fetching model-1" in problem and "are free" in problem

    def test_sizes_in_words(self) -> None:
        found = [in_words(size) for size in (0, 999, 1500, 271_000_000, 16_400_000_000, 3 * 10**12, 10**15)]
        assert found == ["0 B", "999 B", "1.5 kB", "271 MB", "16 GB", "3.0 TB", "1000 TB"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The folder of a real disk of 64 MB, and the rights by which tests/small_disk.py may mount it there.

    It is a tmpfs, mounted by root or in a user namespace. A container that grants neither has a small /dev/shm, where
    nothing need be mounted.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    for rights, options in {"root": [], "user": ["--user", "--map-root-user"]}.items():
        tried = ["unshare", *options, "--mount", "mount", "-t", "tmpfs", "tmpfs", str(disk)]
        if subprocess.run(tried, capture_output=True).returncode == 0:
            yield disk, rights
            return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        assert shutil.disk_usage(shared).free < 10**9, "no small disk here: it takes `unshare --mount`, or a small shm"
        yield Path(shared), ""


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_was_done(small_disk: tuple[Path, str], tmp_path: Path) -> None:
    disk, rights = small_disk
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"PYTHONPATH": str(ROOT)}
    inherited["TMPDIR"] = str(tmp_path)
    overrides = ["--config-dir", str(ROOT / "tests" / "conf"), *STUNTS, "retention.keep_best=1"]
    overrides += ["actions.nudge.hyperparameters.amount=[0.1,0.2,0.3,0.4]"]
    done = forkserver.run(
        [sys.executable, "-m", "tests.small_disk", str(disk), str(tmp_path), rights, *overrides],
        cwd=ROOT,
        env=inherited,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    first, full, again, fills_up, left = re.split("FULL\n|MADE SPACE\n|FILLS UP\n|LEFT\n", done.stdout)
    assert "code 0" in first, done.stdout

    assert "code 75" in full and "Traceback" not in full, full
    assert "lamdagent: there is no room for nudge(" in full
    assert re.search(rf"17 MB are needed in {disk}\S* \(\d+ kB for new weights, 17 MB for the rest\)", full), full
    assert re.search(r"and 1[0-2] MB are free", full) and "Make space; then the same command goes on" in full, full
    told = re.search(
        r"prune` with the same overrides deletes the weights of (\d models) that nothing needs (\(.*?\))", full
    )
    assert told, full

    assert f"weights deleted: {told[1]} {told[2]}" in again and again.count("code 0") == 2, again

    assert "code 0" in fills_up and "no space left on the disk" in fills_up, fills_up
    runs = runs_of(tmp_path, "stunts")
    assert {run.info.status for run in of_kind(runs, "search")} == {"FINISHED"} and len(of_kind(runs, "search")) == 3
    actions = of_kind(runs, "action")
    assert [run.info.status for run in actions] == [*["FINISHED"] * 4, "FAILED", "FINISHED"]
    assert tag(actions[4], "failure_kind") == "no_space"
    assert len(left.split()) == 1 and int(left.strip().rstrip("%")) < 50, "what was written is gone again: " + left


@pytest.mark.slow
def test_a_search_prunes_after_each_action_where_that_is_wanted(tmp_path: Path) -> None:
    retention = ("retention.automatic=true", "retention.keep_best=1", "search.test_top=1")
    code, output = search(tmp_path, *STUNTS, *retention, "budget.trials=3")
    assert code == 0, output
    actions = of_kind(runs_of(tmp_path, "stunts"), "action")
    pruned = [run for run in actions if tag(run, "pruned")]
    best = max(actions, key=lambda run: run.data.metrics["score"])
    assert pruned and best not in pruned and output.count("weights deleted: model-") >= 1
    for run in actions:
        folder = Path(run.info.artifact_uri) / "model"
        assert folder.is_dir() != (run in pruned) and tag(run, "weights_sha256")
    code, output = search(tmp_path, *STUNTS, *retention, "budget.trials=3")
    assert code == 0, output
