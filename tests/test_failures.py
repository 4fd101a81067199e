"""What a failure leads to: its cause, a second try, the end of the search; and what a budget allows."""

import os
from pathlib import Path
from typing import Any

import pytest

from lamdagent.actions.action import Action
from lamdagent.config import BudgetConfig
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.execution.oom import OomWatch
from lamdagent.loop.failure_streak import FailureStreak
from lamdagent.loop.ledger import Ledger, Spent
from lamdagent.loop.limits import Limits
from lamdagent.loop.second_try import both, rows_at_once, with_less_memory
from tests.builders import SFT, space


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


def reasons(streak: FailureStreak, *failures: tuple[Action, Failed]) -> list[str | None]:
    """Why the search must stop, after each of the failures in turn."""
    found = []
    for action, failed in failures:
        streak = streak.failed(action, failed)
        found.append(streak.stop_reason)
    return found


class TestStreak:
    def test_stops_at_so_many_of_one_kind_and_says_what_to_do(self) -> None:
        full = Failed("j", "no space left on the disk", "no_space")
        first, second, reason = reasons(FailureStreak(3), *((action, full) for action in SFTS[:3]))
        assert first is second is None
        assert reason is not None
        assert "3 actions in a row" in reason and "free some space" in reason and "same command goes on" in reason

    def test_a_success_or_another_kind_begins_anew(self) -> None:
        lost, full = Failed("j", "exit code 7", "lost_worker"), Failed("j", "full", "no_space")
        streak = FailureStreak(2).failed(SFTS[0], lost)
        assert streak.stop_reason is None
        *before, last = reasons(streak.succeeded(), (SFTS[0], lost), (SFTS[1], full), (SFTS[1], lost), (SFTS[0], lost))
        assert before == [None] * 3 and last

    @pytest.mark.parametrize("kind", ["out_of_memory", "nan_loss", "timeout", "bad_model", "interrupted", "budget"])
    def test_what_the_action_is_to_blame_for_stops_nothing(self, kind: str) -> None:
        assert not any(reasons(FailureStreak(1), *((action, Failed("j", "why", kind)) for action in SFTS)))

    def test_an_unknown_end_does_not_break_the_row(self) -> None:
        full, cut_off = Failed("j", "full", "no_space"), Failed("j", "cut off", "budget")
        *before, last = reasons(FailureStreak(2), *((SFTS[0], failed) for failed in (full, cut_off, full)))
        assert before == [None] * 2 and last

    def test_data_faults_count_by_dataset_and_errors_by_their_text(self) -> None:
        bad = Failed("j", "no column", "bad_data")
        calls = [a for a in SFTS if a.datasets[0].name == "calls"]
        mixed = [a for a in SFTS if a.datasets[0].name == "mixed"]
        first, second, third = reasons(FailureStreak(2), (calls[0], bad), (mixed[0], bad), (mixed[1], bad))
        assert first is second is None and third
        one, two = Failed("j", "one", "error"), Failed("j", "two", "error")
        first, second, third = reasons(FailureStreak(2), (calls[0], one), (calls[0], two), (mixed[0], two))
        assert first is second is None and third

    def test_null_never_stops(self) -> None:
        full = Failed("j", "full", "no_space")
        assert not any(reasons(FailureStreak(None), *((action, full) for action in SFTS * 5)))


class TestLimits:
    def test_gpu_hours_end_by_the_hour_and_only_with_a_gpu(self) -> None:
        limits, ledger = Limits(BudgetConfig(trials=None, gpu_hours=1.0), gpus=1), Ledger()
        assert limits.reached(ledger, 3500) is None
        assert limits.timeout_s(ledger, 7200, reserve_s=600) == pytest.approx(3000)
        assert "would not fit into 1 GPU hours" in str(limits.reached(ledger, 3500 + 200))
        ledger = ledger.carried_over(Spent(2, 0.5, 3600.0))
        assert ledger.trials == 2 and "1 GPU hours are used" in str(limits.reached(ledger))
        assert limits.timeout_s(ledger, 7200) == 1.0
        assert Limits(BudgetConfig(trials=None, gpu_hours=1.0)).timeout_s(Ledger(), 7200) == 7200

    def test_the_clock_keeps_the_reserve(self) -> None:
        limits = Limits(BudgetConfig(wall_clock_minutes=10.0))
        assert limits.timeout_s(Ledger(), 7200, 60) == pytest.approx(540, abs=5)
        assert "budget of 10 minutes" in limits.cut_off_reason(Ledger())

    def test_usd_of_earlier_processes_counts(self) -> None:
        limits, ledger = Limits(BudgetConfig(usd=2.0)), Ledger().carried_over(Spent(usd=1.5))
        assert limits.reached(ledger) is None
        assert "2.00 USD of 2" in str(limits.reached(ledger.paid(0.5)))
