"""`python -m lamdagent rebuild` and `prune` on a search that has really run: each a process of its own."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Run

from lamdagent.evaluation.task import Score
from lamdagent.memory.history import build_history
from lamdagent.objects.checksum import hash_weights
from lamdagent.remaking.proof import difference, items_of, within_noise
from lamdagent.tracking import schema
from lamdagent.tracking.reading import read_every_run
from lamdagent.tracking.store import RunStore
from lamdagent.weights import pruning
from tests.searches import CONF, Said, client_of, lamdagent, of_kind, runs_of, search, tag

INLINE = "execution=inline"
SMOKE = ("+experiment=smoke", "search.test_top=1")


@dataclass
class Shelf:
    """The folder of a search that has ended, whose weights are deleted and made again."""

    folder: Path
    experiment: str = "lamdagent-smoke"

    @property
    def actions(self) -> list[Run]:
        return of_kind(runs_of(self.folder, self.experiment), "action")

    def run(self, run_id: str) -> Run:
        return client_of(self.folder).get_run(run_id)

    def weights(self, run_id: str) -> Path:
        return Path(self.run(run_id).info.artifact_uri) / "model"

    def prune(self, *run_ids: str) -> None:
        store = RunStore(f"sqlite:///{self.folder}/mlflow.db", self.experiment)
        trials = build_history(read_every_run(store), (), (), ()).by_run
        assert pruning.prune(store, [trials[run_id] for run_id in run_ids]) > 0

    def tell(self, run_id: str, key: str, value: str) -> None:
        client_of(self.folder).set_tag(run_id, key, value)

    def lamdagent(self, *words: str) -> Said:
        return lamdagent(self.folder, *words)


def parents_of(run: Run) -> list[str]:
    return list(json.loads(tag(run, "parents")))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    folder = tmp_path_factory.mktemp("shelf")
    code, output = search(folder, *SMOKE)
    assert code == 0, output
    return Shelf(folder)


@pytest.fixture(scope="module")
def chain(shelf: Shelf) -> tuple[Run, Run]:
    """An action and one on top of its model."""
    made = {run.info.run_id: run for run in shelf.actions if run.info.status == "FINISHED"}
    child = next(run for run in made.values() if any(parent in made for parent in parents_of(run)))
    return next(made[parent] for parent in parents_of(child) if parent in made), child


@pytest.mark.slow
class TestRebuild:
    def test_weights_come_back_bit_by_bit_and_their_parents_are_not_kept(
        self, shelf: Shelf, chain: tuple[Run, Run]
    ) -> None:
        parent, child = (run.info.run_id for run in chain)
        before = {file.name: file.read_bytes() for file in shelf.weights(child).iterdir()}
        shelf.prune(parent, child)
        assert not shelf.weights(child).exists() and not shelf.weights(parent).exists()

        done = shelf.lamdagent("rebuild", child)
        assert done.code == 0, done.output
        assert f"rebuilt {child}: the same weights, by checksum" in done.output and parent in done.output
        assert {file.name: file.read_bytes() for file in shelf.weights(child).iterdir()} == before
        run = shelf.run(child)
        assert not tag(run, "pruned") and json.loads(tag(run, "rebuilt"))["proof"] == "the same weights, by checksum"
        assert not shelf.weights(parent).exists() and tag(shelf.run(parent), "pruned")
        left = {path.name for path in shelf.weights(child).parents[1].iterdir()}
        assert left == {"artifacts"}, "the workplace is cleared"

        done = shelf.lamdagent("rebuild", parent, INLINE)
        assert done.code == 0 and hash_weights(shelf.weights(parent)).sha256 == tag(shelf.run(parent), "weights_sha256")

    def test_without_equal_weights_equal_scores_will_do(self, shelf: Shelf, chain: tuple[Run, Run]) -> None:
        run_id = chain[0].info.run_id
        hashed = hash_weights(shelf.weights(run_id))
        shelf.prune(run_id)
        shelf.tell(run_id, schema.WEIGHTS_SHA256, "0" * 64)
        done = shelf.lamdagent("rebuild", run_id, INLINE)
        assert done.code == 0, done.output
        assert "other weights, with scores within noise of the old ones (" in done.output
        assert tag(shelf.run(run_id), "weights_sha256") == hashed.sha256 == hash_weights(shelf.weights(run_id)).sha256

    def test_another_model_is_refused_loudly(self, shelf: Shelf) -> None:
        """Its recipe has steps now that leave nothing of what was learnt."""
        trained = [run for run in shelf.actions if tag(run, "action") == "sft_full"]
        best = max(trained, key=lambda run: run.data.metrics["task.repeat"])
        recipe = Path(best.info.artifact_uri) / "recipe.yaml"
        text = recipe.read_text()
        content = yaml.safe_load(text)
        content["steps"][-1]["hyperparameters"] |= {"learning_rate": 3.0}
        shelf.prune(best.info.run_id)
        recipe.write_text(yaml.safe_dump(content, sort_keys=False))
        try:
            done = shelf.lamdagent("rebuild", best.info.run_id, INLINE)
            assert done.code == 1 and "Another model came out" in done.output, done.output
            assert "Traceback" not in done.output and not shelf.weights(best.info.run_id).exists()
            assert tag(shelf.run(best.info.run_id), "pruned")
        finally:
            recipe.write_text(text)
        assert shelf.lamdagent("rebuild", best.info.run_id, INLINE).code == 0

    def test_data_that_has_changed_or_is_gone_is_named(self, shelf: Shelf) -> None:
        run = next(run for run in shelf.actions if tag(run, "action") == "sft_full")
        used = tag(run, "inputs")
        (name, fingerprint), *_ = [(one["name"], one["fingerprint"]) for one in json.loads(used)["dataset"]]
        shelf.prune(run.info.run_id)
        try:
            shelf.tell(run.info.run_id, "lamdagent.inputs", used.replace(fingerprint, "f" * 32))
            changed = shelf.lamdagent("rebuild", run.info.run_id, INLINE)
            shelf.tell(run.info.run_id, "lamdagent.inputs", used.replace(f'"{name}"', '"lost"'))
            lost = shelf.lamdagent("rebuild", run.info.run_id, INLINE)
        finally:
            shelf.tell(run.info.run_id, "lamdagent.inputs", used)
        assert changed.code == 2 and f"the dataset {name} has changed since the run" in changed.output
        assert lost.code == 2 and "no dataset 'lost'" in lost.output
        assert shelf.lamdagent("rebuild", run.info.run_id, INLINE).code == 0

    @pytest.mark.parametrize(
        ("words", "reason"),
        [((), "wanted one run id"), (("0" * 32,), "There is no run"), ((INLINE, "0" * 32), "There is no run")],
    )
    def test_a_wrong_run_is_the_users_fault(self, shelf: Shelf, words: tuple[str, ...], reason: str) -> None:
        done = shelf.lamdagent("rebuild", *words)
        assert done.code == 2 and reason in done.output and "Traceback" not in done.output

    def test_what_has_its_weights_is_left_alone(self, shelf: Shelf) -> None:
        runs = runs_of(shelf.folder, shelf.experiment)
        for kind, reason in (("action", "has its weights"), ("base", "made no model: it is base")):
            done = shelf.lamdagent("rebuild", of_kind(runs, kind)[-1].info.run_id, INLINE)
            assert done.code == 2 and reason in done.output

    def test_elsewhere_there_is_no_store(self, tmp_path: Path) -> None:
        done = Shelf(tmp_path).lamdagent("rebuild", "0" * 32)
        assert done.code == 2 and "there is no store" in done.output and not list(tmp_path.iterdir())


@pytest.mark.slow
class TestPrune:
    SEARCH = (
        *(*CONF, "+experiment=stunts", "search.test_top=1", "execution=inline"),
        *("actions.nudge.hyperparameters.amount=[0.1,0.2,0.3,0.4]", "budget.trials=3", "retention.keep_best=1"),
    )

    @pytest.fixture(scope="class")
    @classmethod
    def ended(cls, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
        shelf = Shelf(tmp_path_factory.mktemp("prune"), "stunts")
        assert shelf.lamdagent(*cls.SEARCH).code == 0
        return shelf

    def test_a_dry_run_deletes_nothing_and_the_other_what_it_said(self, ended: Shelf) -> None:
        dry = ended.lamdagent("prune", *self.SEARCH, "dry_run=true")
        assert dry.code == 0, dry.output
        assert all(ended.weights(run.info.run_id).is_dir() for run in ended.actions)
        going = dry.output.count("it goes")
        assert going and f"the weights of {going} models would go" in dry.output and "│ tested" in dry.output

        done = ended.lamdagent("prune", *self.SEARCH)
        assert done.code == 0 and f"weights deleted: {going} models" in done.output, done.output
        pruned = [run for run in ended.actions if tag(run, "pruned")]
        assert len(pruned) == going and not any(ended.weights(run.info.run_id).exists() for run in pruned)
        assert all((Path(run.info.artifact_uri) / "recipe.yaml").is_file() for run in pruned)
        best = max(ended.actions, key=lambda run: run.data.metrics["score"])
        assert ended.weights(best.info.run_id).is_dir()
        assert "0 models would go" in ended.lamdagent("prune", *self.SEARCH, "dry_run=true").output

    def test_a_search_goes_on_with_what_is_left(self, ended: Shelf) -> None:
        done = ended.lamdagent(*self.SEARCH, "budget.trials=1")
        assert done.code == 0, done.output
        assert [run.info.status for run in ended.actions] == ["FINISHED"] * 4

    def test_who_takes_a_result_over_knows_that_its_weights_are_gone(self, ended: Shelf) -> None:
        done = ended.lamdagent(*self.SEARCH, "budget.trials=4", "tracking.experiment=elsewhere")
        assert done.code == 0, done.output
        taken = {tag(run, "reused_from"): tag(run, "pruned") for run in Shelf(ended.folder, "elsewhere").actions}
        assert len(ended.actions) >= 3
        assert all(taken[run.info.run_id] == tag(run, "pruned") for run in ended.actions)

    def test_without_tasks_nobody_can_tell(self, ended: Shelf) -> None:
        done = ended.lamdagent("prune", f"tracking.experiment={ended.experiment}")
        assert done.code == 2 and "no tasks are given" in done.output

    def test_an_unknown_experiment_is_not_made(self, ended: Shelf) -> None:
        done = ended.lamdagent("prune", *self.SEARCH, "tracking.experiment=misspelt")
        assert done.code == 2 and "no experiment 'misspelt'" in done.output
        assert client_of(ended.folder).get_experiment_by_name("misspelt") is None


class TestProof:
    def test_pairs_tell_more_than_two_averages(self) -> None:
        before = {str(i): float(i % 2) for i in range(100)}
        after = before | {str(i): 0.0 for i in range(1, 20, 2)}
        paired = difference(Score(0.5, 0.05), Score(0.4, 0.05), before, after)
        assert paired.value == pytest.approx(-0.1) and paired.stderr < 0.035 and not within_noise(paired)
        alone = difference(Score(0.5, 0.05), Score(0.4, 0.05), {}, after)
        assert alone.stderr == pytest.approx(0.0707, abs=1e-4) and within_noise(alone)

    def test_equal_scores_without_an_error_are_within_noise(self) -> None:
        assert within_noise(difference(Score(0.5), Score(0.5), {}, {}))
        assert not within_noise(difference(Score(0.5), Score(0.6), {}, {}))

    def test_samples_of_whole_texts_have_no_items(self) -> None:
        assert items_of('{"id": 1, "score": 0.5}\n{"id": 2, "score": true}\n') == {"1": 0.5, "2": 1.0}
        assert (
            items_of('{"id": 1, "score": null}\n') == {} == items_of('{"id": 1, "score": 1}\n{"id": 1, "score": 1}\n')
        )
