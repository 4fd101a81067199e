"""Rejection sampling: what a model answers right becomes data of the pool, with hash, lineage and recipe."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.entities import Run
from safetensors.torch import load_file

from lamdagent import letters
from lamdagent.actions.context import Context, ignore_progress
from lamdagent.actions.sampling import rft
from lamdagent.errors import ActionFailed
from lamdagent.execution.progress import Progress
from lamdagent.objects.dataset import is_made
from lamdagent.objects.rows import as_text, cached_path, fingerprint_of_rows
from lamdagent.worker.prepare import prepare_model
from tests.searches import ROOT, client_of, lamdagent, of_kind, runs_of, tag

CONF = ("--config-dir", str(ROOT / "tests" / "conf"))
GENERATED = (*CONF, "+experiment=generated", "execution=inline")
REWARD = "tests.test_generation:right"
SHORT: dict[str, Any] = {"epochs": 1.0, "steps": 0, "batch_size": 8, "micro_batch_size": 8, "max_length": 64}


def right(completions: list[Any], completion: list[Any], **_: Any) -> list[float]:
    """1 for the row's own letter."""
    return [float(said[-1]["content"] == row[-1]["content"]) for said, row in zip(completions, completion, strict=True)]


def nothing(completions: list[Any], **_: Any) -> list[float]:
    """What no answer is worth."""
    return [0.25 for _ in completions]


@pytest.fixture(scope="module")
def model() -> str:
    """A pico model that knows first letters; read only: the searches take it from the same cache."""
    return prepare_model(ignore_progress, spec={"source": "function:lamdagent.letters:base", "license": "mit"}).folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "asked.jsonl"
    path.write_text(as_text(letters.rows("first", 40)), encoding="utf-8")
    return str(path)


def drawn(model: str, path: str, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """The rows that an action leaves."""
    seed, fraction = changes.pop("seed", 0), changes.pop("data_fraction", 1.0)
    context = Context(folder / "model", seed, fraction, data=folder / "dataset")
    values = {"reward": REWARD, "answers": 4, "most": 2, "completion_length": 1, "learning_rate": 1e-3}
    rft(context, model=model, dataset=path, **{**SHORT, **values, **changes})
    return [json.loads(line) for line in (folder / "dataset" / "rows.jsonl").read_text().splitlines()]


def test_right_answers_are_kept_and_learnt(model: str, prompts: str, tmp_path: Path) -> None:
    seen: list[Progress] = []
    context = Context(tmp_path / "model", report=seen.append, data=tmp_path / "dataset")
    values = {"answers": 4, "most": 2, "completion_length": 1, "learning_rate": 1e-3, "answers_at_once": 32}
    made, _ = rft(context, model=model, dataset=prompts, reward=REWARD, **{**SHORT, **values})
    text = (tmp_path / "dataset" / "rows.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    asked = {json.dumps(row["prompt"], sort_keys=True): row["completion"] for row in letters.rows("first", 40)}
    assert 10 < len(rows) <= 40, "each right answer once: there is one to each prompt"
    assert all(
        row["completion"] == asked[json.dumps(row["prompt"], sort_keys=True)] and row["reward"] == 1.0 for row in rows
    )
    about = json.loads((tmp_path / "dataset" / "about.json").read_text())
    assert about["fingerprint"] == fingerprint_of_rows(text) and cached_path(about["fingerprint"]).read_text() == text
    assert (about["kind"], about["rows"], about["columns"]) == ("sft", len(rows), ["completion", "prompt", "reward"])
    assert about["description"].startswith(f"{len(rows)} of 160 answers that a model gave to 40 prompts")
    phases = [(p.phase, p.done, p.total) for p in seen]
    assert phases[:5] == [("sample", 8 * n, 40) for n in range(1, 6)]
    assert phases[-1] == ("train", -(-len(rows) // 8), -(-len(rows) // 8)), "all kept rows, once"
    before = load_file(Path(model) / "model.safetensors")
    assert any(not torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items() if name in before)


def test_equal_seeds_draw_equal_answers(model: str, prompts: str, tmp_path: Path) -> None:
    first, same, other = (drawn(model, prompts, tmp_path / str(n), seed=seed) for n, seed in enumerate((3, 3, 4)))
    assert first == same != other


def test_a_fraction_of_the_prompts_is_answered_and_all_that_is_kept_is_used(
    model: str, prompts: str, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    context = Context(tmp_path / "model", data_fraction=0.5, report=seen.append, data=tmp_path / "dataset")
    rft(context, model=model, dataset=prompts, reward=REWARD, completion_length=1, learning_rate=1e-3, **SHORT)
    rows = (tmp_path / "dataset" / "rows.jsonl").read_text().splitlines()
    assert {p.total for p in seen if p.phase == "sample"} == {20}
    assert seen[-1].total == -(-len(rows) // 8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"reward": "tests.test_generation:nothing"},
            "None of 8 answers to 2 prompts was accepted: the best was",
        ),
        ({"reward": "lamdagent.rewards.answers:same_answer"}, "has no column answer, which rejection sampling needs"),
    ],
)
def test_nothing_to_learn_is_said(changes: dict[str, Any], said: str, model: str, prompts: str, tmp_path: Path) -> None:
    with pytest.raises(ActionFailed, match=said):
        drawn(model, prompts, tmp_path, prompts=2, **changes)


def test_a_user_s_dataset_may_not_be_called_like_a_made_one(tmp_path: Path) -> None:
    changed = "+datasets.data-1a2b3c4d={kind: sft, function: 'lamdagent.letters:rows', arguments: {skill: low}}"
    code, output = lamdagent(tmp_path, *GENERATED, changed, "dry_run=true")
    assert code == 2 and "names such as data-1a2b3c4d are those of data that actions make" in output


def test_sft_needs_somebody_who_makes_its_data(tmp_path: Path) -> None:
    code, output = lamdagent(tmp_path, *GENERATED, "~actions.rft_full", "dry_run=true")
    assert code == 2 and "actions.sft_full: its slot 'dataset' takes sft, but there is no such dataset" in output


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """A search in which models are trained on what others have answered; without a cache of its rows afterwards."""
    folder = tmp_path_factory.mktemp("generated")
    code, output = lamdagent(folder, *GENERATED)
    assert code == 0, output
    return folder, runs_of(folder, "generated")


def learners(runs: list[Run]) -> list[tuple[Run, str]]:
    """The actions on made data, with the name of it."""
    found = []
    for run in of_kind(runs, "action"):
        names = [name for some in json.loads(tag(run, "slots")).values() for name in some if is_made(name)]
        found += [(run, name) for name in names]
    return found


@pytest.mark.slow
class TestSearch:
    """One search, and what can be done with what it has left."""

    def test_the_data_are_an_artifact_with_hash_and_lineage(self, searched: tuple[Path, list[Run]]) -> None:
        folder, runs = searched
        assert learners(runs), "the random policy has trained on made data"
        makers = {run.info.run_id: run for run in of_kind(runs, "action") if tag(run, "dataset")}
        assert {tag(run, "action") for run in makers.values()} == {"rft_full"}
        for run, name in learners(runs):
            parents = json.loads(tag(run, "parents"))
            assert len(parents) == 2, "a model's run, then the data's"
            about = json.loads(tag(makers[parents[1]], "dataset"))
            assert name == f"data-{about['fingerprint'][:8]}"
            path = client_of(folder).download_artifacts(parents[1], "dataset/rows.jsonl", str(folder))
            assert fingerprint_of_rows(Path(path).read_text()) == about["fingerprint"]
            recipe = client_of(folder).download_artifacts(run.info.run_id, "recipe.yaml", str(folder))
            assert f"makes:\n    {name}: {about['fingerprint']}" in Path(recipe).read_text()
            assert f"runs/{parents[1]})" in run.data.tags["mlflow.note.content"]

    def test_a_restart_knows_them(self, searched: tuple[Path, list[Run]]) -> None:
        folder, runs = searched
        code, output = lamdagent(folder, *GENERATED, "budget.trials=7")
        assert code == 0, output
        now = runs_of(folder, "generated")
        fingerprints = [tag(run, "fingerprint") for run in of_kind(now, "action")]
        assert len(fingerprints) == len(set(fingerprints)) > len(of_kind(runs, "action"))
        assert all(run.info.status == "FINISHED" for run in now)

    def test_another_experiment_takes_them_over(self, searched: tuple[Path, list[Run]]) -> None:
        folder, _ = searched
        code, output = lamdagent(folder, *GENERATED, "tracking.experiment=elsewhere", "budget.trials=8")
        assert code == 0, output
        now = runs_of(folder, "elsewhere")
        taken = [run for run in of_kind(now, "action") if tag(run, "reused_from") and tag(run, "dataset")]
        known = {run.info.run_id for run in runs_of(folder, "generated")}
        assert taken and {json.loads(tag(run, "dataset"))["run_id"] for run in taken} <= known
        here = {run.info.run_id for run in now}
        assert learners(now) and all(set(json.loads(tag(run, "parents"))) <= here for run, _ in learners(now))
        assert all(run.info.status == "FINISHED" for run in now)

    def test_a_replay_makes_the_data_again(self, searched: tuple[Path, list[Run]]) -> None:
        folder, runs = searched
        last, old = learners(runs)[-1]
        code, output = lamdagent(folder, "replay", last.info.run_id, *CONF, "search.seed=5", "execution=inline")
        assert code == 0, output
        search = of_kind(runs_of(folder, "generated"), "search")[-1]
        again = [
            run
            for run in of_kind(runs_of(folder, "generated"), "action")
            if run.data.tags["mlflow.parentRunId"] == search.info.run_id
        ]
        (step,) = [run for run in again if tag(run, "replay_of") == last.info.run_id]
        name = next(n for some in json.loads(tag(step, "slots")).values() for n in some if is_made(n))
        assert name != old, "another seed has drawn other answers"
        assert json.loads(tag(step, "parents"))[1] in {run.info.run_id for run in again}

    def test_deleted_weights_come_back_equal(self, searched: tuple[Path, list[Run]], tmp_path: Path) -> None:
        folder, runs = searched
        client = client_of(folder)
        wanted = [learners(runs)[0][0], next(run for run in of_kind(runs, "action") if tag(run, "dataset"))]
        for run in wanted:
            weights = Path(run.info.artifact_uri.removeprefix("file://")) / "model"
            for file in weights.iterdir():
                file.unlink()
            weights.rmdir()
            client.set_tag(run.info.run_id, "lamdagent.pruned", "{}")
        about = json.loads(tag(wanted[1], "dataset"))
        cached_path(about["fingerprint"]).unlink(missing_ok=True)  # as on another machine
        code, output = lamdagent(folder, "rebuild", wanted[0].info.run_id, *CONF, "execution=inline")
        assert code == 0 and "the same weights, by checksum" in output, output
        code, output = lamdagent(folder, "rebuild", wanted[1].info.run_id, *CONF, "execution=inline")
        assert code == 0, output
