"""What a search may spend, what it has spent before a restart, and when a failure ends it."""

import time
from pathlib import Path

import pytest

from lamdagent.budget import Budget
from lamdagent.config import BudgetConfig, Config
from lamdagent.errors import SearchStopped
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.failures import Streak, with_smaller_batches
from lamdagent.plan import Plan
from lamdagent.tracking import schema
from lamdagent.tracking.journal import Journal
from lamdagent.tracking.store import Store

TIMEOUT = Failed("j", "took longer than its limit of 1 minutes and was ended", "timeout")


def test_the_first_limit_ends_it() -> None:
    limits = BudgetConfig(trials=3, usd=1.0, gpu_hours=1.0)
    assert not Budget(limits).ended()
    assert "3 trials" in Budget(limits, trials=3).ended()
    assert "1.00 USD" in Budget(limits, usd=1.0).ended()
    assert "GPU hours" in Budget(limits, gpu_seconds=3600).ended()


def test_an_action_may_run_as_long_as_wall_clock_and_gpu_hours_allow() -> None:
    without_gpu = Budget(BudgetConfig(gpu_hours=1.0))
    assert without_gpu.compute_left_s == float("inf"), "no GPU has been used"
    assert Budget(BudgetConfig(gpu_hours=1.0), gpu_seconds=3000.0).compute_left_s == 600.0
    both = Budget(BudgetConfig(gpu_hours=1.0, wall_clock_minutes=5), gpu_seconds=3000.0)
    assert 290 < both.compute_left_s <= 300


def test_an_action_that_the_budget_ended_says_so() -> None:
    spent = Budget(BudgetConfig(wall_clock_minutes=1), started=time.monotonic() - 60)
    assert spent.explained(TIMEOUT, 0.0).kind == "budget"  # type: ignore[union-attr]
    assert Budget(BudgetConfig(wall_clock_minutes=1)).explained(TIMEOUT, 0.0) is TIMEOUT
    done = Finished("j", None, 1.0)
    assert spent.explained(done, 0.0) is done


def test_what_was_spent_before_a_restart_counts(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/mlflow.db", "budget")
    plan = Plan(config=Config(), types=(), datasets=(), tasks=())
    first = Journal(store, plan, "")
    assert first.open("one") == (0, 0.0, 0.0)
    for usd in (0.5, 0.25):
        run = store.start_run(first.search_run_id, "action", "a", {schema.FINGERPRINT: f"f{usd}"}, {})
        first.spent(run, usd)
        store.finish_run(run, metrics={schema.COST_GPU_SECONDS: 30.0})
    first.close("KILLED", "interrupted by the user")
    assert Journal(store, plan, "").open("one") == (2, 60.0, 0.75)
    assert Journal(store, plan, "").open("another") == (0, 0.0, 0.0)


class TestStreak:
    def test_only_failures_of_one_kind_in_a_row_end_a_search(self) -> None:
        streak = Streak(2)
        streak.failed(Failed("j", "r", "timeout"))
        streak.failed(Failed("j", "r", "error"))
        streak.succeeded()
        streak.failed(Failed("j", "r", "error"))
        for wanted in ("interrupted", "budget"):
            streak.failed(Failed("j", "r", wanted))
        with pytest.raises(SearchStopped, match=r"2 actions .* \(error\).* no room .*search.max_failures=2"):
            streak.failed(Failed("j", "no room", "error"))

    def test_without_a_limit_it_never_ends(self) -> None:
        streak = Streak(None)
        for _ in range(100):
            streak.failed(Failed("j", "r", "no_space"))


class TestSmallerBatches:
    OUT = Failed("j", "r", "out_of_memory")

    @pytest.mark.parametrize(("micro", "batch", "then"), [(8, 8, 2), (64, 8, 2), (3, 8, 1), (2, 8, 1)])
    def test_a_quarter_of_the_rows_at_once(self, micro: int, batch: int, then: int) -> None:
        job = Job("j", "t", {"inputs": {"micro_batch_size": micro, "batch_size": batch, "steps": 4}, "seed": 1}, 9.0)
        again = with_smaller_batches(job, self.OUT)
        assert again and again.arguments == {
            "inputs": {"micro_batch_size": then, "batch_size": batch, "steps": 4},
            "seed": 1,
        }

    def test_not_where_it_cannot_help(self) -> None:
        one = {"micro_batch_size": 1, "batch_size": 8}
        assert with_smaller_batches(Job("j", "t", {"inputs": one}, 9.0), self.OUT) is None
        assert with_smaller_batches(Job("j", "t", {"inputs": {"weight": 0.5}}, 9.0), self.OUT) is None
        more = Job("j", "t", {"inputs": {"micro_batch_size": 8, "batch_size": 8}}, 9.0)
        assert with_smaller_batches(more, Failed("j", "r", "error")) is None
