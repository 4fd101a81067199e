"""What follows from a job that has ended: effects and the next ledger, without a store and without an executor."""

from dataclasses import replace
from typing import Any

import pytest

from lamdagent.config import BudgetConfig
from lamdagent.evaluation.task import Score
from lamdagent.execution.executor import Failed, Finished, Job
from lamdagent.loop.failure_streak import FailureStreak
from lamdagent.loop.job_pool import JobResult
from lamdagent.loop.landed import Fail, Finish, Prune, Reflect, Retry, SaveCosts, base_landed, ended_action, landed
from lamdagent.loop.ledger import Ledger, OpenRun
from lamdagent.loop.limits import Limits
from lamdagent.loop.phases import Phase
from lamdagent.memory.trial import RETRYABLE
from lamdagent.selection.random_policy import RandomPolicy
from lamdagent.selection.registry import Notes
from lamdagent.worker.make import Outcome
from tests.builders import SFT, model, space

ACTION, OTHER, *_ = space(types=(SFT,)).actions(SFT)
LIMITS = Limits(BudgetConfig(trials=5, gpu_hours=1.0), gpus=1)
PHASE = Phase("explore", None, RandomPolicy(), "", LIMITS)
SCORES = {"calls": Score(0.5, 0.1)}
KIND = replace(SFT, accelerate={"num_processes": 2}, timeout_minutes=100 / 60)


def ledger(**run: Any) -> Ledger:
    """Two of three trials run: `run` and another one."""
    return Ledger(trials=3).opened("run", OpenRun(ACTION, **run)).opened("other", OpenRun(OTHER))


def job(timeout_s: float = 100.0, **inputs: Any) -> Job:
    return Job("run", "m:f", {"run_id": "run", "inputs": inputs}, timeout_s)


def finished(seconds: float = 10.0) -> Finished:
    return Finished("run", Outcome(SCORES), seconds)


def failed(kind: str, seconds: float = 10.0) -> Failed:
    return Failed("run", "why", kind, seconds=seconds)


class TestFinished:
    def test_the_run_is_finished_and_its_costs_are_counted(self) -> None:
        effects, after = landed(JobResult(job(), finished(), "evaluate"), ledger(), PHASE, KIND)
        costs, finish = effects
        assert isinstance(finish, Finish) and finish.outcome.scores == SCORES and finish.seconds == 10.0
        assert finish.model.fingerprint == ACTION.fingerprint and finish.model.location == "runs:/run/model"
        assert finish.ended == 2, "of three trials one still runs"
        assert after.gpu_seconds == 20.0, "one GPU for each of two processes"
        assert costs == SaveCosts(after.spent) and list(after.open) == ["other"] and after.trials == 3

    def test_scores_and_weights_of_an_older_run_stand(self) -> None:
        run = {"known": {"style": Score(0.9, 0.1)}, "weights": "runs:/old/model"}
        effects, _ = landed(JobResult(job(), finished(), "evaluate"), ledger(**run), PHASE, KIND)
        (finish,) = [effect for effect in effects if isinstance(effect, Finish)]
        assert set(finish.outcome.scores) == {"style", "calls"} and finish.model.location == "runs:/old/model"

    def test_what_the_phase_wants_follows(self) -> None:
        phase = replace(PHASE, prune=True, reflect=lambda *_: Notes("", 0.0, ()))
        effects, _ = ended_action(finished(), ledger(), phase)
        assert [type(effect) for effect in effects] == [Finish, Prune, Reflect]
        effects, _ = ended_action(failed("nan_loss"), ledger(), phase)
        assert [type(effect) for effect in effects] == [Fail, Reflect], "a failure teaches, too"


class TestFailed:
    @pytest.mark.parametrize("kind", [*RETRYABLE, "nan_loss", "timeout", "error"])
    def test_a_failure_of_the_surroundings_is_no_trial(self, kind: str) -> None:
        effects, after = ended_action(failed(kind), ledger(), PHASE)
        assert effects == [Fail(failed(kind), ACTION)] and "run" not in after.open
        assert after.trials == (2 if kind in RETRYABLE else 3)

    def test_failures_in_a_row_stop_the_search_but_not_where_nothing_depends_on_the_phase(self) -> None:
        once = replace(ledger(), streak=FailureStreak(limit=1))
        _, after = ended_action(failed("no_space"), once, PHASE)
        assert after.stop_reason is not None and "free some space" in after.stop_reason
        _, after = ended_action(failed("no_space"), once, replace(PHASE, may_win=False))
        assert after.stop_reason is None

    def test_a_success_ends_the_row(self) -> None:
        before = replace(ledger(), streak=FailureStreak(2).failed(OTHER, failed("no_space")))
        assert before.streak.length == 1
        assert ended_action(finished(), before, PHASE)[1].streak.length == 0

    def test_a_job_that_the_budget_has_cut_short_is_not_to_blame(self) -> None:
        spent = replace(ledger(), gpu_seconds=3590.0)
        effects, after = landed(JobResult(job(60.0), failed("timeout"), "train"), spent, PHASE, KIND)
        (fail,) = [effect for effect in effects if isinstance(effect, Fail)]
        assert fail.failed.kind == "budget" and "the budget of 1 GPU hours" in fail.failed.reason
        assert after.trials == 2
        effects, _ = landed(JobResult(job(100.0), failed("timeout"), "train"), spent, PHASE, KIND)
        assert effects[-1] == Fail(failed("timeout"), ACTION), "it had its own whole time"


class TestSecondTry:
    ROWS = {"batch_size": 16, "micro_batch_size": 4}

    def test_out_of_memory_means_once_more_with_fewer_rows_at_once(self) -> None:
        effects, after = landed(JobResult(job(**self.ROWS), failed("out_of_memory"), "train"), ledger(), PHASE, KIND)
        costs, again = effects
        assert isinstance(again, Retry) and again.rows == 2 and again.reason == "why"
        assert again.job.arguments["inputs"]["micro_batch_size"] == 2
        assert after.open["run"].first == failed("out_of_memory") and after.trials == 3
        assert costs == SaveCosts(after.spent) and after.gpu_seconds == 20.0

    def test_only_once_and_the_time_of_both_counts(self) -> None:
        tried = ledger(first=failed("out_of_memory", seconds=4.0))
        result = JobResult(job(**self.ROWS), failed("out_of_memory"), "train")
        effects, after = landed(result, tried, PHASE, KIND)
        assert effects[1:] == [Fail(failed("out_of_memory", seconds=14.0), ACTION)]
        assert after.gpu_seconds == 20.0, "the first try was counted when it ended"
        effects, _ = landed(JobResult(job(**self.ROWS), finished(), "train"), tried, PHASE, KIND)
        (finish,) = [effect for effect in effects if isinstance(effect, Finish)]
        assert finish.seconds == 14.0


class TestBase:
    OPEN = Ledger().opened("run", OpenRun(model(0), known={"style": Score(0.9, 0.1)}))

    def test_a_base_is_finished_with_the_scores_that_were_known(self) -> None:
        effects, after = base_landed(finished(), self.OPEN, gpus=1, prune=True)
        costs, finish, prune = effects
        assert isinstance(finish, Finish) and set(finish.outcome.scores) == {"style", "calls"}
        assert finish.model == model(0) and finish.ended == 0, "a base is no trial"
        assert costs == SaveCosts(after.spent) and after.gpu_seconds == 10.0 and not after.open and prune == Prune()

    def test_a_base_that_fails_is_closed(self) -> None:
        effects, after = base_landed(failed("error"), self.OPEN, gpus=0, prune=True)
        assert effects == [SaveCosts(after.spent), Fail(failed("error"), None)] and not after.open
