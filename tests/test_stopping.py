"""How failures, signals and budgets end a search, and how the same command goes on: real processes, real signals."""

import json
import os
import signal
from pathlib import Path

import pytest
from mlflow.entities import Run

from lamdagent.config import Config
from lamdagent.loop.ledger import Spent
from lamdagent.loop.run_writer import RunWriter
from lamdagent.memory.text import memory_text
from lamdagent.memory.trial import RETRYABLE, History
from lamdagent.planning.plan import Plan
from lamdagent.selection.policy import Turn
from lamdagent.selection.surrogate import predict
from lamdagent.tracking.store import RunStore
from tests.builders import DATASETS, SFT, TASKS, TYPES, base_trial, space, trial_of
from tests.searches import begin, end, fingerprints, of_kind, runs_of, search, tag
from tests.stunts import FOLDER
from tests.test_search import read_until

SFTS = list(space(types=(SFT,)).actions(SFT))


def test_costs_outlive_the_process(tmp_path: Path) -> None:
    def journal() -> RunWriter:
        plan = Plan(Config(), TYPES, DATASETS, TASKS)
        return RunWriter(RunStore(f"sqlite:///{tmp_path}/mlflow.db", "costs"), plan, "")

    first = journal()
    assert first.search_run.open("search") == Spent()
    first.search_run.record_spent(Spent(3, 0.25, 100.0))
    first.search_run.record_spent(Spent(4, 0.75, 250.0))
    first.search_run.close("KILLED", "interrupted by the user")
    second = journal()
    assert (
        second.search_run.open("search") == Spent(0, 0.75, 250.0)
        and second.search_run.run_id == first.search_run.run_id
    )
    second.search_run.close("FINISHED", "")
    assert journal().search_run.open("search") == Spent(), "a new search starts from nothing"


@pytest.mark.parametrize("kind", [*RETRYABLE, "out_of_memory", "nan_loss", "timeout"])
def test_risk_and_memory_treat_each_kind_sensibly(kind: str) -> None:
    failed = [trial_of(action, n, None, f"why {n}", kind) for n, action in enumerate(SFTS[:2], 1)]
    history = History((base_trial(), *failed))
    left = space(tried={SFTS[0].fingerprint})
    prediction = predict(Turn(history, left, 1), SFTS[1:2])[0]
    assert (prediction.failure > 0.2) == (kind not in RETRYABLE)
    text = memory_text(history, left, TASKS, 2000)
    assert ("## Failures" in text) == (kind not in RETRYABLE or kind == "lost_worker")
    assert ("says little about the action" in text) == (kind == "lost_worker")


def only_action(folder: Path, experiment: str) -> Run:
    (run,) = of_kind(runs_of(folder, experiment), "action")
    return run


@pytest.mark.slow
class TestOutOfMemory:
    NARROW = ("+experiment=stunts", "+action=narrow", "~actions.nudge", "+dataset=pico_spell", "budget.trials=1")

    def test_once_more_with_half_the_rows_at_once_on_the_same_data(self, tmp_path: Path) -> None:
        (tmp_path / "fits").write_text("4")
        code, output = search(tmp_path, *self.NARROW, **{FOLDER: str(tmp_path)})
        assert code == 0 and "once more with 4 rows at once" in output, output
        run = only_action(tmp_path, "stunts")
        assert run.info.status == "FINISHED" and run.data.params["micro_batch_size"] == "8"
        assert tag(run, "micro_batch_size") == "4"
        first, *second = (json.loads(line) for line in (tmp_path / "batches").read_text().splitlines())
        assert len(first) == 8 and [len(rows) for rows in second] == [4, 4, 4], "of twelve: a step of 8, then of 4"
        assert second[0] + second[1] == first
        recipe = Path(run.info.artifact_uri.removeprefix("file://")) / "recipe.yaml"
        assert "micro_batch_size: 4" in recipe.read_text(), "what was run, not what was asked"

    def test_only_once(self, tmp_path: Path) -> None:
        (tmp_path / "fits").write_text("0")
        code, output = search(tmp_path, *self.NARROW, **{FOLDER: str(tmp_path)})
        assert code == 0, output
        run = only_action(tmp_path, "stunts")
        assert run.info.status == "FAILED" and tag(run, "failure_kind") == "out_of_memory"
        assert "4 rows of up to 64 tokens at once" in tag(run, "status_reason")
        assert len((tmp_path / "batches").read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_full_disk_stops_the_search_until_there_is_space(tmp_path: Path) -> None:
    command = ("+experiment=stunts", "+action=writes", "~actions.nudge", "budget.trials=5")
    (tmp_path / "disk").symlink_to("/dev/full")
    code, output = search(tmp_path, *command, **{FOLDER: str(tmp_path)})
    assert code == 75 and "What to do: free some space" in output and "Traceback" not in output, output
    runs = runs_of(tmp_path, "stunts")
    assert [tag(run, "failure_kind") for run in of_kind(runs, "action")] == ["no_space"] * 3
    assert runs[0].info.status == "FAILED" and "3 actions in a row" in tag(runs[0], "status_reason")
    (tmp_path / "disk").unlink()
    code, output = search(tmp_path, *command, **{FOLDER: str(tmp_path)})
    assert code == 0, output
    runs = runs_of(tmp_path, "stunts")
    assert len(of_kind(runs, "search")) == 1 and runs[0].info.status == "FINISHED"
    assert len(set(fingerprints(runs))) == 4 and "RUNNING" not in {run.info.status for run in runs}


@pytest.mark.slow
def test_one_ctrl_c_waits_for_the_action_in_flight(tmp_path: Path) -> None:
    command = ("+experiment=stunts", "+action=gated", "~actions.nudge", "budget.trials=2")
    (tmp_path / "block").write_text("1")
    process = begin(tmp_path, *command, **{FOLDER: str(tmp_path)})
    read_until(process, "blocked")
    os.kill(process.pid, signal.SIGINT)
    read_until(process, "Ctrl-C once more")
    (tmp_path / "block").write_text("0")
    code, output = end(process)
    assert code == 130 and "the same command goes on" in output and "Traceback" not in output, output
    runs = runs_of(tmp_path, "stunts")
    assert [run.info.status for run in runs] == ["KILLED", "FINISHED", "FINISHED"], "search, base, action"
    code, output = search(tmp_path, *command, **{FOLDER: str(tmp_path)})
    assert code == 0, output
    runs = runs_of(tmp_path, "stunts")
    assert {run.info.status for run in runs} == {"FINISHED"} and len(of_kind(runs, "search")) == 1
    assert len(fingerprints(runs)) == len((tmp_path / "ran").read_text().split()) == 2


@pytest.mark.slow
def test_an_action_in_flight_ends_with_the_budget(tmp_path: Path) -> None:
    (tmp_path / "block").write_text("2")
    limits = ("budget.trials=null", "budget.wall_clock_minutes=0.4")
    command = ("+experiment=stunts", "+action=gated", "~actions.nudge", "execution=local", *limits)
    code, output = search(tmp_path, *command, **{FOLDER: str(tmp_path)})
    assert code == 0, output
    runs = runs_of(tmp_path, "stunts")
    done, cut_off = of_kind(runs, "action")
    assert (done.info.status, cut_off.info.status) == ("FINISHED", "FAILED")
    assert tag(cut_off, "failure_kind") == "budget" and "budget of 0.4 minutes" in tag(cut_off, "status_reason")
    assert "test.score" in done.data.metrics, "the time for the final test was kept"
    assert runs[0].info.status == "FINISHED"
