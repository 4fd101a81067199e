"""Jobs for the executors' contract: each does for real what can happen to a worker."""

import os
import time

from lamdagent.errors import ActionFailed
from lamdagent.execution.executor import Progress


def add(report, *, a, b):
    report(Progress("add", 1, 1, {"loss": 0.5}))
    return a + b


def fail(report):
    raise ActionFailed("the data is bad", kind="bad_data")


def crash(report):
    raise ValueError("a bug")


def out_of_memory(report):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")


def vanish(report):
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
