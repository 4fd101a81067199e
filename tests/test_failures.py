"""What fails, what it says, when it stops a search, and how signals and budgets end one."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from lamdagent.budget import Budget, Spent
from lamdagent.config import BudgetConfig, Config
from lamdagent.enumeration import ActionSpace
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.execution.oom import OomWatch
from lamdagent.execution.retry import both, rows_at_once, with_less_memory
from lamdagent.failures import Streak
from lamdagent.memory.history import RETRYABLE
from lamdagent.memory.text import memory_text
from lamdagent.plan import Plan
from lamdagent.selection.policy import Turn
from lamdagent.selection.surrogate import predict
from lamdagent.tracking.journal import Journal
from lamdagent.tracking.store import Store
from lamdagent.trial import History
from tests.builders import DATASETS, SFT, TASKS, TYPES, base_trial, pool, space, trial_of
from tests.searches import begin, end, fingerprints, of_kind, runs_of, search, tag
from tests.stunts import FOLDER
from tests.test_search import read_until


class TestOomWatch:
    """The kernel's own files, in the forms that it writes them."""

    @pytest.mark.parametrize(
        ("lines", "file"),
        [
            ("0::/jobs/7\n", "cgroup/jobs/7/memory.events"),
            ("4:cpu:/x\n3:memory:/jobs/7\n0::/\n", "cgroup/memory/jobs/7/memory.oom_control"),
            ("4:memory:/host/name/of/it\n", "cgroup/memory/memory.oom_control"),
            ("0::/\n", "proc/vmstat"),
        ],
    )
    def test_counts_kills_since_it_began(self, tmp_path: Path, lines: str, file: str) -> None:
        (tmp_path / "proc" / "12").mkdir(parents=True)
        (tmp_path / "proc" / "12" / "cgroup").write_text(lines)
        counter = tmp_path / file
        counter.parent.mkdir(parents=True, exist_ok=True)
        counter.write_text("oom 3\noom_kill_disable 0\noom_kill 2\n")
        watch = OomWatch.of(12, tmp_path / "proc", tmp_path / "cgroup")
        assert watch.counter == counter and not watch.struck()
        counter.write_text("oom 4\noom_kill_disable 0\noom_kill 3\n")
        assert watch.struck()

    def test_this_process_has_not_been_killed(self) -> None:
        assert not OomWatch.of(os.getpid()).struck()

    def test_nothing_is_told_where_nothing_is_shown(self, tmp_path: Path) -> None:
        watch = OomWatch.of(12, tmp_path, tmp_path)
        assert watch.counter is None and not watch.struck()


def job(**inputs: Any) -> Job:
    return Job("j", "m:f", {"run_id": "r", "inputs": inputs}, 60.0)


OOM = Failed("j", "out of memory", "out_of_memory", seconds=2.0)


class TestRetry:
    @pytest.mark.parametrize(
        ("batch", "micro", "expected"), [(16, 4, 2), (16, 16, 8), (6, 3, 1), (12, 5, 2), (8, 64, 4)]
    )
    def test_halves_what_is_in_memory_and_nothing_else(self, batch: int, micro: int, expected: int) -> None:
        first = job(model="a", batch_size=batch, micro_batch_size=micro)
        second = with_less_memory(first, OOM, "train")
        assert second is not None and rows_at_once(second) == expected and batch % expected == 0
        assert second.arguments["inputs"] == {**first.arguments["inputs"], "micro_batch_size": expected}
        assert first.arguments["inputs"]["micro_batch_size"] == micro

    def test_not_where_it_cannot_help(self) -> None:
        plain = job(batch_size=8, micro_batch_size=4)
        assert with_less_memory(job(weight=0.5), OOM, "merge") is None
        assert with_less_memory(job(batch_size=8, micro_batch_size=1), OOM, "train") is None
        assert with_less_memory(job(batch_size=7, micro_batch_size=4), OOM, "train") is None, "7 rows go one by one"
        assert with_less_memory(plain, OOM, "evaluate bfcl") is None
        for kind in ("nan_loss", "timeout", "lost_worker", "error"):
            assert with_less_memory(plain, Failed("j", "", kind), "train") is None

    def test_the_time_of_both_counts(self) -> None:
        assert both(OOM, Finished("j", 1, 3.0)).seconds == 5.0


SFTS = list(space(types=(SFT,)).actions(SFT))


class TestStreak:
    def test_stops_at_so_many_of_one_kind_and_says_what_to_do(self) -> None:
        streak = Streak(3)
        full = Failed("j", "no space left on the disk", "no_space")
        assert not streak.failed(SFTS[0], full) and not streak.failed(SFTS[1], full)
        reason = streak.failed(SFTS[2], full)
        assert "3 actions in a row" in reason and "free some space" in reason and "same command goes on" in reason

    def test_a_success_or_another_kind_begins_anew(self) -> None:
        streak = Streak(2)
        lost, full = Failed("j", "exit code 7", "lost_worker"), Failed("j", "full", "no_space")
        assert not streak.failed(SFTS[0], lost)
        streak.succeeded()
        assert not streak.failed(SFTS[0], lost) and not streak.failed(SFTS[1], full)
        assert not streak.failed(SFTS[1], lost) and streak.failed(SFTS[0], lost)

    @pytest.mark.parametrize("kind", ["out_of_memory", "nan_loss", "timeout", "bad_model", "interrupted", "budget"])
    def test_what_the_action_is_to_blame_for_stops_nothing(self, kind: str) -> None:
        streak = Streak(1)
        assert not any(streak.failed(action, Failed("j", "why", kind)) for action in SFTS)

    def test_an_unknown_end_does_not_break_the_row(self) -> None:
        streak = Streak(2)
        full = Failed("j", "full", "no_space")
        streak.failed(SFTS[0], full)
        streak.failed(SFTS[0], Failed("j", "cut off", "budget"))
        assert streak.failed(SFTS[0], full)

    def test_data_faults_count_by_dataset_and_errors_by_their_text(self) -> None:
        bad = Failed("j", "no column", "bad_data")
        calls = [a for a in SFTS if a.datasets[0].name == "calls"]
        mixed = [a for a in SFTS if a.datasets[0].name == "mixed"]
        streak = Streak(2)
        assert not streak.failed(calls[0], bad) and not streak.failed(mixed[0], bad)
        assert streak.failed(mixed[1], bad)
        streak = Streak(2)
        assert not streak.failed(calls[0], Failed("j", "one", "error"))
        assert not streak.failed(calls[0], Failed("j", "two", "error"))
        assert streak.failed(mixed[0], Failed("j", "two", "error"))

    def test_null_never_stops(self) -> None:
        streak = Streak(None)
        assert not any(streak.failed(action, Failed("j", "full", "no_space")) for action in SFTS * 5)


class TestBudget:
    def test_gpu_hours_end_by_the_hour_and_only_with_a_gpu(self) -> None:
        budget = Budget(BudgetConfig(trials=None, gpu_hours=1.0), gpus=1)
        assert not budget.ended(3500) and budget.limit_s(7200, reserve_s=600) == pytest.approx(3000)
        assert "would not fit into 1 GPU hours" in budget.ended(3500, 200)
        budget.carry_over(Spent(2, 0.5, 3600.0))
        assert budget.trials == 2 and "1 GPU hours are used" in budget.ended()
        assert budget.limit_s(7200) == 1.0
        assert Budget(BudgetConfig(trials=None, gpu_hours=1.0)).limit_s(7200) == 7200

    def test_the_clock_keeps_the_reserve(self) -> None:
        budget = Budget(BudgetConfig(wall_clock_minutes=10.0))
        assert budget.limit_s(7200, 60) == pytest.approx(540, abs=5)
        assert "budget of 10 minutes" in budget.over()

    def test_usd_of_earlier_processes_counts(self) -> None:
        budget = Budget(BudgetConfig(usd=2.0))
        budget.carry_over(Spent(usd=1.5))
        assert not budget.ended()
        budget.usd += 0.5
        assert "2.00 USD of 2" in budget.ended()


def test_costs_outlive_the_process(tmp_path: Path) -> None:
    def journal() -> Journal:
        plan = Plan(Config(), TYPES, DATASETS, TASKS)
        return Journal(Store(f"sqlite:///{tmp_path}/mlflow.db", "costs"), plan, "")

    first = journal()
    assert first.open("search") == Spent()
    first.spent(Spent(3, 0.25, 100.0))
    first.spent(Spent(4, 0.75, 250.0))
    first.close("KILLED", "interrupted by the user")
    second = journal()
    assert second.open("search") == Spent(0, 0.75, 250.0) and second.search_run_id == first.search_run_id
    second.close("FINISHED", "")
    assert journal().open("search") == Spent(), "a new search starts from nothing"


@pytest.mark.parametrize("kind", [*RETRYABLE, "out_of_memory", "nan_loss", "timeout"])
def test_risk_and_memory_treat_each_kind_sensibly(kind: str) -> None:
    failed = [trial_of(action, n, None, f"why {n}", kind) for n, action in enumerate(SFTS[:2], 1)]
    history = History((base_trial(), *failed))
    left = ActionSpace(TYPES, pool(), DATASETS, tried={SFTS[0].fingerprint})
    prediction = predict(Turn(history, left, 1, 0, ""), SFTS[1:2])[0]
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
        assert len(first) == 8 and [len(rows) for rows in second] == [4, 4, 4, 4], "two steps of 8 rows, 4 at once"
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
    limits = ("budget.trials=null", "budget.wall_clock_minutes=1.5")
    command = ("+experiment=stunts", "+action=gated", "~actions.nudge", *limits)
    code, output = search(tmp_path, *command, **{FOLDER: str(tmp_path)})
    assert code == 0, output
    runs = runs_of(tmp_path, "stunts")
    done, cut_off = of_kind(runs, "action")
    assert (done.info.status, cut_off.info.status) == ("FINISHED", "FAILED")
    assert tag(cut_off, "failure_kind") == "budget" and "budget of 1.5 minutes" in tag(cut_off, "status_reason")
    assert "test.score" in done.data.metrics, "the time for the final test was kept"
    assert runs[0].info.status == "FINISHED"
