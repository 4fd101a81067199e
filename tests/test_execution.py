"""The contract of every executor, and what only a worker process survives."""

import os
import random

import pytest

from lamdagent.execution.executor import Executor, Failed, Finished, Job, Update
from lamdagent.execution.inline import InlineExecutor
from lamdagent.execution.local import LocalExecutor


def ended(executor: Executor, name: str, timeout_s: float = 30.0, **arguments):
    executor.submit(Job("j1", f"tests.jobs:{name}", arguments, timeout_s))
    events = []
    for _ in range(600):
        event = executor.next_event(0.1)
        if event is not None:
            events.append(event)
        if isinstance(event, Finished | Failed):
            return event, events
    raise AssertionError(f"no end: {events}")


class ExecutorContract:
    @pytest.fixture
    def executor(self):
        raise NotImplementedError

    def test_value_and_progress_come_back_in_order(self, executor):
        event, events = ended(executor, "add", a=1, b=2)
        assert isinstance(event, Finished) and event.value == 3 and event.job_id == "j1"
        assert isinstance(events[0], Update) and events[0].progress.metrics == {"loss": 0.5}

    def test_expected_failure_keeps_reason_and_kind(self, executor):
        event, _ = ended(executor, "fail")
        assert (event.reason, event.kind) == ("the data is bad", "bad_data")

    def test_bug_is_a_failure_with_traceback(self, executor):
        event, _ = ended(executor, "crash")
        assert event.kind == "error" and "a bug" in event.reason and "tests/jobs.py" in event.details

    def test_out_of_memory_is_recognised(self, executor):
        event, _ = ended(executor, "starves")
        assert event.kind == "out_of_memory" and "micro_batch_size" in event.reason
        assert ended(executor, "add", a=2, b=2)[0].value == 4

    @pytest.mark.parametrize("name", ["fills_the_disk", "wraps_a_full_disk"])
    def test_full_disk_is_recognised(self, executor, name):
        event, _ = ended(executor, name)
        assert event.kind == "no_space" and "no space left on the disk" in event.reason

    def test_unknown_target_is_a_failure(self, executor):
        event, _ = ended(executor, "no_such_function")
        assert isinstance(event, Failed) and "no_such_function" in event.reason

    def test_goes_on_after_a_failure(self, executor):
        ended(executor, "crash")
        assert ended(executor, "add", a=2, b=2)[0].value == 4

    def test_close_twice(self, executor):
        executor.close()
        executor.close()


class TestInline(ExecutorContract):
    @pytest.fixture
    def executor(self):
        return InlineExecutor()

    def test_a_seed_of_a_job_is_not_one_of_this_process(self, executor):
        """MLflow draws the ids of its traces from Python's generator: with the same seed, they would be the same."""
        import numpy
        import torch

        before = random.getstate(), list(numpy.random.get_state()[1]), torch.get_rng_state().tolist()
        assert ended(executor, "seeds")[0].value == ended(executor, "seeds")[0].value
        assert (random.getstate(), list(numpy.random.get_state()[1]), torch.get_rng_state().tolist()) == before


class TestLocal(ExecutorContract):
    @pytest.fixture
    def executor(self):
        executor = LocalExecutor(warm_up=())
        yield executor
        executor.close()

    def test_worker_is_another_process_and_persists(self, executor):
        first, second = ended(executor, "pid")[0].value, ended(executor, "pid")[0].value
        assert first == second != os.getpid()

    @pytest.mark.parametrize(
        ("name", "kind", "words"),
        [
            ("vanish", "lost_worker", "exit code 3"),
            ("segfault", "lost_worker", "SIGSEGV"),
            ("killed", "lost_worker", "SIGKILL"),
        ],
    )
    def test_death_of_the_worker_costs_one_job(self, executor, name, kind, words):
        event, _ = ended(executor, name)
        assert event.kind == kind and words in event.reason
        assert ended(executor, "add", a=1, b=1)[0].value == 2

    def test_hang_ends_at_the_time_limit(self, executor):
        event, _ = ended(executor, "hang", timeout_s=1.0)
        assert event.kind == "timeout" and "limit" in event.reason
        assert ended(executor, "add", a=1, b=1)[0].value == 2
