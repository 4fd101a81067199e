"""One action over two processes on CPUs, started by accelerate's own launcher."""

import dataclasses
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from lamdagent import pico
from lamdagent.config import ExecutionConfig
from lamdagent.execution.executor import Failed, Finished, Job, Update
from lamdagent.execution.local import LocalExecutor
from lamdagent.guards.accelerate_config import Machine, cluster_faults, launch_faults
from lamdagent.loop.second_try import rows_at_once, with_less_memory
from tests.builders import SFT, space
from tests.searches import lamdagent

pytestmark = pytest.mark.slow

TWO = {
    "num_processes": 2,
    "use_cpu": True,
    "distributed_type": "MULTI_CPU",
    "mixed_precision": "no",
    "main_process_port": 0,
}
SHORT: dict[str, Any] = {"steps": 4, "batch_size": 8, "micro_batch_size": 2, "max_length": 64, "learning_rate": 1e-3}
FUNCTIONS = {"sft": "lamdagent.actions.sft:sft", "dpo": "lamdagent.actions.preference:dpo"}


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(warm_up=("trl",))
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("rows")
    for name, made in {"sft": pico.sft_rows(), "dpo": pico.preference_rows()}.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return {name: str(folder / name) for name in FUNCTIONS}


def making(name: str, inputs: dict[str, Any], output: Path, accelerate: dict[str, Any]) -> Job:
    arguments = {"function": FUNCTIONS[name], "inputs": inputs, "output": str(output), "accelerate": accelerate}
    fixed = {"run_id": "r", "seed": 3, "data_fraction": 1.0, "tasks": (), "batch_size": 4}
    return Job("j", "lamdagent.worker.make:make", {**arguments, **fixed}, 300.0)


def events(executor: LocalExecutor, job: Job) -> Iterator[Update | Finished | Failed]:
    executor.submit(job)
    while True:
        event = executor.next_event(1.0)
        if event is not None:
            yield event
        if isinstance(event, Finished | Failed):
            return


def launched() -> list[psutil.Process]:
    """The launcher and its two processes, rank 1 last, of this test's workers."""
    every = psutil.Process().children(recursive=True)
    named = ("pt_elastic", "rank")  # torch calls the launcher so
    return sorted((p for p in every if _name(p) in named), key=lambda process: process.pid)


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not alive


@pytest.mark.parametrize(("name", "lora"), [("sft", 0), ("dpo", 4)])
def test_two_processes_make_the_model_that_one_makes(
    name: str, lora: int, executor: LocalExecutor, rows: dict[str, str], pico_folder: str, tmp_path: Path
) -> None:
    """Equal but for rounding: the rows of a step are the same ones, their gradients are added in another order."""
    inputs = {"model": pico_folder, "dataset": rows[name], "lora_rank": lora, **SHORT}
    made, curves = {}, {}
    for where, accelerate in {"one": {}, "two": TWO}.items():
        *updates, end = events(executor, making(name, inputs, tmp_path / where, accelerate))
        assert isinstance(end, Finished), end
        made[where] = load_file(tmp_path / where / "model" / "model.safetensors")
        curves[where] = [(p.key, p.step, p.value) for p in end.value.curves if p.key == "loss"]
        assert [u.progress.done for u in updates if isinstance(u, Update)] == [1, 2, 3, 4]
    assert [point[:2] for point in curves["one"]] == [point[:2] for point in curves["two"]]
    for one, two in zip(curves["one"], curves["two"], strict=True):
        assert two[2] == pytest.approx(one[2], rel=2e-3)
    before = load_file(Path(pico_folder) / "model.safetensors")
    apart, moved = distance(made["one"], made["two"]), distance(made["one"], before)
    print(f"{name}: apart {apart:.3g}, moved {moved:.3g}, ratio {apart / moved:.3g}")
    assert 0 < moved and apart < 0.05 * moved
    names = [{file.name for file in (tmp_path / where).rglob("*")} for where in made]
    assert names[0] == names[1]
    assert not launched()


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return float(sum((a[key].double() - b[key].double()).square().sum() for key in a) ** 0.5)


def test_a_killed_process_fails_the_action_and_leaves_nothing(
    executor: LocalExecutor, rows: dict[str, str], pico_folder: str, tmp_path: Path
) -> None:
    inputs = {"model": pico_folder, "dataset": rows["sft"], **SHORT, "steps": 10_000}
    tree: list[psutil.Process] = []
    for event in events(executor, making("sft", inputs, tmp_path, TWO)):
        if isinstance(event, Update) and not tree:
            tree = launched()
            tree[-1].send_signal(signal.SIGKILL)
    assert isinstance(event, Failed)
    assert (event.kind, "rank 1 was ended by SIGKILL" in event.reason) == ("lost_worker", True), event
    assert len(tree) == 3 and gone(tree)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_processes_end_with_the_worker(rows: dict[str, str], pico_folder: str, tmp_path: Path) -> None:
    """Such as when its time is over; one that hangs, too."""
    executor = LocalExecutor(warm_up=())
    inputs = {"model": pico_folder, "dataset": rows["sft"], **SHORT, "steps": 10_000}
    executor.submit(making("sft", inputs, tmp_path, TWO))
    while not isinstance(executor.next_event(1.0), Update):
        pass
    tree = launched()
    tree[-1].send_signal(signal.SIGSTOP)
    executor.close()
    assert len(tree) == 3 and gone(tree)


def test_what_a_process_says_is_the_reason(
    executor: LocalExecutor, rows: dict[str, str], pico_folder: str, tmp_path: Path
) -> None:
    *_, end = events(executor, making("dpo", {"model": pico_folder, "dataset": rows["sft"], **SHORT}, tmp_path, TWO))
    assert isinstance(end, Failed) and end.kind == "bad_data" and "no column chosen" in end.reason


def test_less_memory_means_fewer_rows_in_each_process(tmp_path: Path) -> None:
    first = making("sft", {"batch_size": 8, "micro_batch_size": 8}, tmp_path, TWO)
    second = with_less_memory(first, Failed("j", "", "out_of_memory"), "train")
    assert second is not None and rows_at_once(second) == 2, "a process had 4 of the 8 rows"


def test_the_number_of_processes_is_no_part_of_the_fingerprint_but_stands_on_the_run() -> None:
    types = [dataclasses.replace(SFT, accelerate=accelerate) for accelerate in ({}, TWO)]
    one, two = (next(space(types=(action_type,)).actions(action_type)) for action_type in types)
    assert one.fingerprint == two.fingerprint
    assert two.params() == {**one.params(), "accelerate.num_processes": 2}


def test_what_cannot_be_launched_is_said_at_once_before_any_compute(tmp_path: Path) -> None:
    (tmp_path / "fsdp.yaml").write_text(
        "num_processes: 2\nuse_cpu: true\ndistributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\n"
    )
    given = {
        "sft_full": "{num_proceses: 2}",
        "dpo_lora": "fsdp.yaml",
        "merge_linear": "{num_processes: 2, use_cpu: true}",
        "merge_ties": "nowhere.yaml",
    }
    code, said = lamdagent(tmp_path, "+experiment=smoke", *(f"+actions.{k}.accelerate={v}" for k, v in given.items()))
    assert (code, "Traceback" in said) == (2, False), said
    for words in (
        "actions.sft_full.accelerate.num_proceses: unknown key. Allowed: ",
        "actions.sft_full.accelerate.num_processes: got None, wanted 2 or more",
        "actions.dpo_lora.accelerate.distributed_type: got 'FSDP'; allowed: MULTI_GPU, MULTI_CPU",
        "actions.dpo_lora.accelerate.fsdp_config: not supported",
        "actions.merge_linear.accelerate: lamdagent.actions.merging:merge has no batch_size",
        "actions.merge_ties.accelerate: the file 'nowhere.yaml' cannot be read",
    ):
        assert words in said, said
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("accelerate", "fault"),
    [
        ({"num_processes": 12}, "num_processes: got 12, but there are 8 GPUs here"),
        ({"num_processes": 12, "use_cpu": True}, "num_processes: got 12, but there are 4 CPU cores here"),
        ({"num_processes": 8}, "batch_size = 12 must be a multiple of the 8 processes"),
        ({"num_processes": 4}, ""),
    ],
)
def test_processes_fit_the_devices_and_the_batch(accelerate: dict[str, Any], fault: str) -> None:
    grid = {"batch_size": (12, 24), "micro_batch_size": (4,)}
    given = dataclasses.replace(SFT, grid=grid, accelerate=accelerate)
    faults = list(launch_faults(given, Machine(("num_processes", "use_cpu"), gpus=8, cpus=4)))
    assert fault in "\n".join(faults) and len(faults) == bool(fault), faults


@pytest.mark.parametrize(
    ("execution", "accelerate", "fault"),
    [
        ({"kind": "local"}, {"num_processes": 8}, ""),
        ({"kind": "ray", "gpus": 8}, {"num_processes": 8}, ""),
        ({"kind": "ray", "gpus": 1}, {"num_processes": 8}, "sets aside 1 gpus for an action; set execution.gpus=8"),
        ({"kind": "ray", "cpus": 1}, {"num_processes": 2, "use_cpu": True}, "set execution.cpus=2"),
    ],
)
def test_a_cluster_sets_aside_what_the_processes_need(
    execution: dict[str, Any], accelerate: dict[str, Any], fault: str
) -> None:
    given = dataclasses.replace(SFT, accelerate=accelerate)
    faults = list(cluster_faults([given], ExecutionConfig(**execution)))
    assert fault in "\n".join(faults) and len(faults) == bool(fault), faults
