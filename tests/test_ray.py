"""Ray for real: a cluster of two nodes on this machine, one of which is lost; every test ends what it has started."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run

from lamdagent.config import ExecutionConfig
from lamdagent.errors import UserError
from lamdagent.execution.executor import Event, Failed, Finished, Job, Update
from lamdagent.execution.ray_executor import RETRIES, RayExecutor
from tests.searches import PATIENCE_S, begin, end, fingerprints, of_kind, runs_of
from tests.stunts import FOLDER
from tests.test_execution import ExecutorContract, ended

pytestmark = pytest.mark.slow
GATED = ("+experiment=stunts", "+action=gated", "~actions.nudge", "budget.trials=4")
SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU; all their processes are gone afterwards."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    before = set(psutil.Process().children(recursive=True))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **SMALL})
    cluster.add_node(num_cpus=1, object_store_memory=SMALL["object_store_memory"])
    cluster.wait_for_nodes()
    started = set(psutil.Process().children(recursive=True)) - before
    assert started
    yield cluster
    cluster.shutdown()
    gone, alive = psutil.wait_procs(started, timeout=30)
    assert not alive, alive


def settings(address: str | None, **more: Any) -> ExecutionConfig:
    return ExecutionConfig(kind="ray", address=address, **more)


def until_all_ended(executor: RayExecutor, count: int) -> list[Event]:
    events: list[Event] = []
    started = time.monotonic()
    while len([e for e in events if isinstance(e, Finished | Failed)]) < count:
        assert time.monotonic() - started < 120, events
        event = executor.next_event(1.0)
        events += [event] if event is not None else []
    return events


class TestContract(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls) -> Iterator[RayExecutor]:
        executor = RayExecutor(settings(None, cpus=0.5, at_once=1), warm_up=())
        yield executor
        executor.close()

    @pytest.fixture
    def executor(self, shared: RayExecutor) -> RayExecutor:
        return shared

    def test_worker_is_another_process_and_persists(self, executor: RayExecutor) -> None:
        first, second = ended(executor, "pid")[0].value, ended(executor, "pid")[0].value
        assert first == second != os.getpid()

    def test_a_worker_that_is_always_lost_costs_one_job(self, executor: RayExecutor) -> None:
        event, events = ended(executor, "vanish")
        assert event.kind == "lost_worker" and f"{RETRIES + 1} times" in event.reason
        assert len([e for e in events if isinstance(e, Update)]) == RETRIES
        assert ended(executor, "add", a=1, b=1)[0].value == 2

    def test_hang_ends_at_the_time_limit(self, executor: RayExecutor) -> None:
        event, _ = ended(executor, "hang", timeout_s=1.0)
        assert event.kind == "timeout" and "limit" in event.reason
        assert ended(executor, "add", a=1, b=1)[0].value == 2

    def test_a_second_try_starts_with_an_empty_folder(self, executor: RayExecutor, tmp_path: Path) -> None:
        (tmp_path / "output").mkdir()
        event, _ = ended(executor, "leaves", output=str(tmp_path / "output"))
        assert isinstance(event, Finished) and event.value == []

    def test_a_folder_that_the_worker_does_not_see(self, executor: RayExecutor, tmp_path: Path) -> None:
        event, _ = ended(executor, "leaves", output=str(tmp_path / "elsewhere"))
        assert isinstance(event, Failed) and "share the file system" in event.reason

    def test_close_twice(self, executor: RayExecutor) -> None:
        """Last of all, since the executor is shared."""
        executor.close()
        executor.close()


class TestTwoNodes:
    def test_a_lost_node_costs_a_retry(self, cluster: Any, tmp_path: Path) -> None:
        executor = RayExecutor(settings(cluster.address), warm_up=())
        try:
            assert executor.capacity == 2
            go = tmp_path / "go"
            for name in ("one", "two"):
                executor.submit(Job(name, "tests.jobs:where", {"path": str(go)}, 300.0))
            nodes: dict[str, str] = {}
            until = time.monotonic() + 120
            while len(nodes) < 2:
                assert time.monotonic() < until
                if isinstance(event := executor.next_event(1.0), Update):
                    nodes[event.job_id] = event.progress.phase
            assert len(set(nodes.values())) == 2, "each node has one"
            (other,) = cluster.worker_nodes
            (victim,) = [job for job, node in nodes.items() if node == other.node_id]
            cluster.remove_node(other, allow_graceful=False)
            while not isinstance(event := executor.next_event(1.0), Update):
                assert time.monotonic() < until
            assert event.job_id == victim and "starts again" in event.progress.phase
            assert executor.capacity == 1, "nobody plans for a node that is gone"
            go.touch()
            ends = [e for e in until_all_ended(executor, 2) if not isinstance(e, Update)]
            assert {e.job_id: type(e) for e in ends} == {"one": Finished, "two": Finished}
        finally:
            executor.close()

    def test_what_fits_nowhere_is_said(self, cluster: Any) -> None:
        with pytest.raises(UserError, match="takes 3 CPUs.*the machines have: 1 CPUs"):
            RayExecutor(settings(cluster.address, cpus=3.0), warm_up=())

    def test_a_search_survives_a_lost_node(self, cluster: Any, tmp_path: Path) -> None:
        address = f"execution.address={cluster.address}"
        words = ("~actions.dpo_lora", "execution=ray", address, "budget.trials=4", "search.test_top=1")
        process = begin(tmp_path, "+experiment=smoke", *words)
        wait_for(tmp_path, "lamdagent-smoke", process, lambda runs: len(running(runs)) == 2)
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        code, output = end(process)
        assert code == 0, output
        runs = runs_of(tmp_path, "lamdagent-smoke")
        assert {run.info.status for run in runs} == {"FINISHED"}, output
        assert len(of_kind(runs, "action")) == 4 and max(Counter(fingerprints(runs)).values()) == 1


def running(runs: list[Run]) -> list[Run]:
    return [run for run in of_kind(runs, "action") if run.info.status == "RUNNING"]


def wait_for(folder: Path, experiment: str, process: Any, condition: Any) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < until and process.poll() is None, end(process)
        if (folder / "mlflow.db").exists():
            try:
                if condition(runs_of(folder, experiment)):
                    return
            except AssertionError:
                pass  # the experiment is not there yet
        time.sleep(0.3)


def test_the_cluster_dies_with_a_killed_driver_and_a_restart_goes_on(tmp_path: Path) -> None:
    command = (*GATED, "execution=ray", "execution.at_once=2", "execution.cpus=0.5")
    (tmp_path / "block").write_text("2")  # this call never ends, so that there is one in flight to be killed
    process = begin(tmp_path, *command, **{FOLDER: str(tmp_path)})
    wait_for(tmp_path, "stunts", process, lambda runs: running(runs) and fingerprints(runs))
    # Two small agents of Ray's watch for their node's end once a minute; whatever works must be gone sooner.
    family = [p for p in psutil.Process(process.pid).children(recursive=True) if "Agent" not in p.name()]
    done = fingerprints(runs_of(tmp_path, "stunts"))
    process.kill()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive, alive
    end(process)
    (tmp_path / "block").write_text("0")
    code, output = end(begin(tmp_path, *command, **{FOLDER: str(tmp_path)}))
    assert code == 0, output
    runs = runs_of(tmp_path, "stunts")
    found = Counter(fingerprints(runs))
    assert set(done) <= set(found) and sum(found.values()) == 4 and max(found.values()) == 1
    assert not running(runs)
