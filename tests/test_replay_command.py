"""`replay`, `transfer` and the ladder on searches that really run, in this process: trainings and merges."""

import json
import os
import signal
from pathlib import Path

import pytest
from mlflow.entities import Run

from lamdagent.scaling.replay_policy import ReplayPolicy
from lamdagent.selection.policy import Decision, Turn
from tests.searches import CONF, client_of, lamdagent, of_kind, runs_of, tag

pytestmark = pytest.mark.slow
SCALED = ("+experiment=scaled", "execution=inline", "agent=random", "search.seed=2")


def newest(folder: Path) -> tuple[Run, list[Run]]:
    """The last search run and its actions."""
    runs = runs_of(folder, "scaled")
    search = of_kind(runs, "search")[-1]
    return search, [r for r in of_kind(runs, "action") if r.data.tags["mlflow.parentRunId"] == search.info.run_id]


def parents_of(run: Run) -> list[str]:
    return list(json.loads(tag(run, "parents")))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """A search on half of the data: its folder and its runs."""
    folder = tmp_path_factory.mktemp("scaled")
    code, output = lamdagent(folder, *CONF, *SCALED, "data_fraction=0.5")
    assert code == 0, output
    return folder, runs_of(folder, "scaled")


def actions(runs: list[Run]) -> dict[str, Run]:
    return {run.info.run_id: run for run in of_kind(runs, "action")}


def line(runs: dict[str, Run], run_id: str) -> set[str]:
    """The run and the actions that it rests on."""
    return {run_id}.union(*(line(runs, parent) for parent in parents_of(runs[run_id]) if parent in runs))


def chosen(run: Run) -> dict[str, str]:
    """The params that say nothing of models and scale."""
    left_out = ("model", "models", "weight", "seed", "data_fraction")
    return {key: value for key, value in run.data.params.items() if key not in left_out}


@pytest.fixture(scope="module")
def replayed(small: tuple[Path, list[Run]]) -> tuple[dict[str, Run], Run, dict[str, Run], str]:
    """The last pipeline of the search with all data and another seed: old runs, the new search, new runs by old ids."""
    folder, runs = small
    old = actions(runs)
    last = list(old)[-1]
    code, output = lamdagent(folder, "replay", last, "data_fraction=1.0", "search.seed=3", "execution=inline")
    assert code == 0, output
    search, made = newest(folder)
    return old, search, {tag(run, "replay_of"): run for run in made}, last


Replayed = tuple[dict[str, Run], Run, dict[str, Run], str]


class TestReplay:
    def test_every_step_is_made_once_on_the_models_of_the_new_scale(self, replayed: Replayed) -> None:
        old, search, now, last = replayed
        assert set(now) == line(old, last) and len(now) == 5
        assert {run.data.params["action"] for run in now.values()} == {"sft_full", "merge_linear"}
        for then, run in now.items():
            assert (run.data.params["data_fraction"], run.data.params["seed"]) == ("1.0", "3")
            assert chosen(run) == chosen(old[then]) and tag(run, "policy") == "replay"
            moved = [now[p].info.run_id if p in now else p for p in parents_of(old[then])]
            assert sorted(parents_of(run)) == sorted(moved)
        assert json.loads(tag(search, "replays")) == [last] and search.info.status == "FINISHED"

    def test_a_mirrored_share_stays_with_its_model(self, replayed: Replayed) -> None:
        old, _, now, _ = replayed
        for then, run in now.items():
            if run.data.params["action"] == "merge_linear":
                assert share(run, {n.info.run_id: t for t, n in now.items()}) == share(old[then], {})

    def test_the_new_model_is_tested_and_compared_with_its_own_scale_only(self, replayed: Replayed) -> None:
        old, search, now, last = replayed
        assert "test.score" in now[last].data.metrics and "test.score" not in old[last].data.metrics
        assert tag(search, "data_fraction") == "1.0"

    def test_what_is_in_the_store_is_not_made_again(self, small: tuple[Path, list[Run]], replayed: Replayed) -> None:
        old, _, now, last = replayed
        part = next(parent for parent in parents_of(old[last]) if parent in old)
        given = ("data_fraction=1.0", "search.seed=3", "execution=inline")
        code, output = lamdagent(small[0], "replay", part, *given)
        assert code == 0, output
        search, made = newest(small[0])
        assert not made and json.loads(tag(search, "replays")) == [part] and now[part].info.run_id in output

    def test_another_base_and_another_setting(self, small: tuple[Path, list[Run]], replayed: Replayed) -> None:
        old, _, _, last = replayed
        part = next(run_id for run_id, run in old.items() if run.data.params["action"] == "merge_linear")
        changes = ("base=function:tests.stunts:other", "++actions.sft_full.hyperparameters.learning_rate=0.005")
        code, output = lamdagent(small[0], "replay", part, *changes, "execution=inline")
        assert code == 0, output
        base = of_kind(runs_of(small[0], "scaled"), "base")[-1]
        training, merge = newest(small[0])[1]
        assert parents_of(training) == [base.info.run_id] != parents_of(old[next(iter(old))])
        assert training.data.params["learning_rate"] == "0.005" and training.data.params["data_fraction"] == "0.5"
        assert {tag(run, "base") for run in (training, merge)} == {tag(base, "model_fingerprint")}
        assert share(merge, {}) == {training.info.run_id: 0.7, base.info.run_id: 0.3} or share(merge, {}) == {
            training.info.run_id: 0.3,
            base.info.run_id: 0.7,
        }

    def test_a_step_that_fails_ends_it_and_the_same_command_tries_it_again(
        self, small: tuple[Path, list[Run]], replayed: Replayed
    ) -> None:
        folder, last = small[0], replayed[3]
        command = ("replay", last, "++actions.sft_full.hyperparameters.learning_rate=1e30", "execution=inline")
        for times in (1, 2):
            code, output = lamdagent(folder, *command)
            search, made = newest(folder)
            assert code == 1 and "could not be repeated" in output and "Traceback" not in output, output
            failed = [run for run in made if run.info.status == "FAILED"]
            assert len(failed) == times and made[-times:] == failed, "nothing else of the pipeline is begun"
            assert search.info.status == "FAILED" and tag(failed[0], "replay_of") in tag(search, "status_reason")


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("search", "is a search; give one of its actions, such as its champion"),
        ("base", "is an initial model"),
        ("others", "was not made by this package"),
        ("none", "There is no run"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_the_reason(
    small: tuple[Path, list[Run]], which: str, said: str
) -> None:
    folder, runs = small
    run_id = {"search": runs[0].info.run_id, "base": runs[1].info.run_id, "none": "0" * 32}.get(which)
    if run_id is None:
        client = client_of(folder)
        run_id = client.create_run(client.get_experiment_by_name("scaled").experiment_id).info.run_id
    code, output = lamdagent(folder, "replay", run_id, "data_fraction=1.0")
    assert code == 2 and said in output, output


def test_what_says_nothing_to_a_replay_is_refused(small: tuple[Path, list[Run]]) -> None:
    for words in ([], ["a", "b"]):
        code, output = lamdagent(small[0], "replay", *words)
        assert code == 2 and ("wanted one run id" in output or "cannot be composed" in output), output
    last = list(actions(small[1]))[-1]
    for word, said in (
        ("budget.trials=0", "at least 1"),
        ("+actions.dpo.version=2", "made without it"),
        ("agent=tpe", "agent: "),
    ):
        code, output = lamdagent(small[0], "replay", last, word)
        assert code == 2 and said in output, output
    code, output = lamdagent(small[0], *CONF, "+experiment=scaled", "base=elsewhere")
    assert code == 2 and "base: got 'elsewhere'" in output


def test_transfer_compares_the_rankings(small: tuple[Path, list[Run]], replayed: Replayed) -> None:
    """Of the newest search that chose itself, though replays have followed it."""
    folder, runs = small
    given = ("+experiment=scaled", "execution=inline", "top=2", "spread=1", "data_fraction=1.0")
    code, output = lamdagent(folder, "transfer", *CONF, *given)
    assert code == 0, output
    search, made = newest(folder)
    picked = json.loads(tag(search, "replays"))
    assert len(picked) == 3 and set(picked) <= set(actions(runs))
    assert {run.data.params["data_fraction"] for run in made} == {"1.0"}
    found = json.loads(Path(client_of(folder).download_artifacts(search.info.run_id, "transfer.json")).read_text())
    assert [pair["then"]["run_id"] for pair in found["pairs"]] == picked and found["left_out"] == []
    metrics = search.data.metrics
    assert metrics["transfer.pipelines"] == 3 and metrics["transfer.regret"] == found["regret"]
    assert "rank correlation" in output and "in the paper only gaps of 5 points" in output


class Interrupted(ReplayPolicy):
    """Is asked to end, as by `kill`, before its third pick."""

    asked = 0

    def __call__(self, turn: Turn) -> Decision | None:
        Interrupted.asked += 1
        if Interrupted.asked == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__(turn)


def test_a_ladder_goes_up_and_goes_on_after_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (*CONF, *SCALED, "budget.trials=3", "ladder.rungs=[0.3,0.6,1.0]", "ladder.keep=1", "champion.beyond=0")
    monkeypatch.setattr("lamdagent.loop.phases.ReplayPolicy", Interrupted)
    code, output = lamdagent(tmp_path, *command)
    assert code == 130, output
    monkeypatch.undo()
    code, output = lamdagent(tmp_path, *command)
    assert code == 0, output
    runs = runs_of(tmp_path, "scaled")
    (search,) = of_kind(runs, "search")
    assert search.info.status == "FINISHED" and tag(search, "data_fraction") == "1.0"
    rungs: dict[str, list[Run]] = {}
    for run in of_kind(runs, "action"):
        rungs.setdefault(run.data.params["data_fraction"], []).append(run)
    assert list(rungs) == ["0.3", "0.6", "1.0"] and len(rungs["0.3"]) == 3
    assert not any(tag(run, "replay_of") for run in rungs["0.3"])
    best = max(rungs["0.3"], key=lambda run: (run.data.metrics["score"], -run.info.start_time))
    now = {run.info.run_id: run for run in rungs["0.3"]}
    assert {tag(run, "replay_of") for run in rungs["0.6"]} == line(now, best.info.run_id)
    assert {tag(run, "replay_of") for run in rungs["1.0"]} == {run.info.run_id for run in rungs["0.6"]}
    assert len(rungs["0.6"]) == len(rungs["1.0"]) == len(line(now, best.info.run_id)), "nothing is made twice"
    tested = [run for run in of_kind(runs, "action") if "test.score" in run.data.metrics]
    assert tested and {run.data.params["data_fraction"] for run in tested} == {"1.0"}


def share(merge: Run, origin: dict[str, str]) -> dict[str, float]:
    """Run id (as it was in the old search) of each of the two models -> its share."""
    first = float(merge.data.params["weight"])
    one, two = (origin.get(parent, parent) for parent in parents_of(merge))
    return {one: first, two: pytest.approx(1 - first)}
