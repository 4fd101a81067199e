"""Jobs for the executors' contract: each does for real what can happen to a worker."""

import os
import random
import resource
import time
from pathlib import Path

from lamdagent.errors import ActionFailed
from lamdagent.execution.progress import Progress


def add(report, *, a, b):
    report(Progress("add", 1, 1, {"loss": 0.5}))
    return a + b


def seeds(report):
    """What every training does first."""
    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    return random.random()


def fail(report):
    raise ActionFailed("the data is bad", kind="bad_data")


def crash(report):
    raise ValueError("a bug")


def starves(report):
    """Take memory until the system gives no more, at 64 MB beyond what the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 64 * 2**20, before[1]))
    held = []
    try:
        while True:
            held.append(bytearray(2**20))
    finally:
        held.clear()
        resource.setrlimit(resource.RLIMIT_AS, before)


def fills_the_disk(report):
    with open("/dev/full", "wb") as file:
        file.write(b"weights")


def wraps_a_full_disk(report):
    try:
        fills_the_disk(report)
    except OSError as error:
        raise RuntimeError("the model could not be saved") from error


def vanish(report):
    os._exit(3)


def vanishes_once(report, *, path):
    if Path(path).exists():
        return "there"
    Path(path).touch()
    os._exit(3)


def segfault(report):
    import ctypes

    ctypes.string_at(0)


def killed(report):
    os.kill(os.getpid(), 9)


def hang(report):
    while True:
        time.sleep(0.05)


def pid(report):
    return os.getpid()


def until(report, *, path):
    while not os.path.exists(path):
        time.sleep(0.02)
    return path


def where(report, *, path):
    """The Ray node that it runs on, told at once; ends when `path` is there."""
    import ray

    report(Progress(ray.get_runtime_context().get_node_id(), 0, 1))
    return until(report, path=path)


def leaves(report, *, output):
    """What lies in `output`; the first try leaves a file there and takes its worker with it."""
    import ray

    found = sorted(os.listdir(output))
    with open(f"{output}/half-written", "x"):
        pass
    tries = os.path.join(os.path.dirname(output), "tries")
    with open(tries, "a") as file:
        file.write(f"{ray.get_runtime_context().get_actor_id()}\n")
    with open(tries) as file:
        if len(file.readlines()) == 1:
            os._exit(3)
    return found
