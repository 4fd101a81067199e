"""Real processes that start without the imports: forked from a server that has done them.

A test of a whole search starts a driver, and that a worker; MLflow, torch and TRL would cost each of them 5 to 20 s of
a core. `Popen` gives the same process, a child of the caller with its own pid, environment, folder and output. It
differs in one thing: the libraries are in memory already. Tests of what is loaded, or when, use `subprocess.Popen`.

multiprocessing has a fork server, too, but what it starts is no child of the caller and has the server's environment,
folder and output. This one forks twice: the process in between ends at once, and the caller, whom the kernel takes for
the nearest reaper meanwhile, becomes the parent of what is left. A driver has a server of its own, for its workers.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import json
import os
import pkgutil
import re
import runpy
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from itertools import dropwhile
from multiprocessing import util
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
PRELOADED = (
    *("mlflow.server", "mlflow.genai", "hydra", "litellm", "optuna", "lm_eval.models.huggingface", "mergekit.merge"),
    *("trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "trl.trainer.kto_trainer", "trl.trainer.grpo_trainer"),
    *("peft", "pandas", "datasets", "huggingface_hub.constants", "sklearn.gaussian_process", "rich.progress"),
)
READ_AT_IMPORT = ("HF_", "TRANSFORMERS_", "OMP_", "RAY_", "LD_", "PYTHON", "_MLFLOW_STATIC")
"""What the libraries read when they are loaded: a process that wants other values is started as usual."""
OFFLINE = "HF_HUB_OFFLINE"
"""But for this one, which two of them keep as a constant."""
WORKER = "--multiprocessing-fork"
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NAME = 15
_MESSAGE_BYTES = 1 << 20
_FLAG = re.compile("-[BEIPsu]|-X.+|-W.+")
"""Of the interpreter, without meaning here."""
_PLAIN = subprocess.Popen
_lock = threading.Lock()
_line: list[socket.socket] = []
"""To this process's server, once there is one."""


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen`; the fork server starts `python -m module`, `python -c code` and `python script`.

    Other commands, and those that want what a fork cannot give, are started as usual. SIGINT ends what is started,
    though a test run in the background ignores it.
    """

    def _execute_child(self, args: Any, *rest: Any) -> None:
        executable, preexec, _, passed, folder, env, *_ = rest
        stdin, to, source, stdout, errors, stderr = rest[9:15]
        words = args if isinstance(args, list | tuple) else [args]
        environment = dict(os.environ if env is None else env)
        if executable or preexec or str(words[0]) != sys.executable or not _same_libraries(environment):
            super()._execute_child(args, executable, preexec or _heed_sigint, *rest[2:])  # type: ignore[misc]
            return
        given = enumerate((stdin, stdout, stderr))
        streams = {number: number if descriptor < 0 else descriptor for number, descriptor in given}
        streams |= {number: number for number in passed}
        new_session = bool(rest[20])
        self.pid = fork([str(word) for word in words[1:]], str(folder or Path.cwd()), environment, streams, new_session)
        self._child_created = True
        self._close_pipe_fds(stdin, to, source, stdout, errors, stderr)  # type: ignore[attr-defined]


def run(command: list[Any], **settings: Any) -> "subprocess.CompletedProcess[Any]":
    """`subprocess.run` with this `Popen`."""
    with patch("subprocess.Popen", Popen):
        return subprocess.run(command, **settings)


def fork(
    words: list[str],
    folder: str,
    environment: dict[str, str],
    streams: dict[int, int],
    new_session: bool = False,
    for_good: bool = True,
) -> int:
    """The pid of a new child that runs `python *words`; `streams`: number there -> descriptor here.

    `for_good`: what the child starts in its turn is forked, too.
    """
    order = {"words": words, "folder": folder, "environment": environment, "numbers": list(streams)}
    order |= {"new_session": new_session, "for_good": for_good}
    with _lock:
        server = _server()
        _adopt(True)
        try:
            socket.send_fds(server, [json.dumps(order).encode()], list(streams.values()))
            answer = server.recv(100)
        finally:
            _adopt(False)
    if not answer:
        raise RuntimeError("the fork server is gone; what it said stands above")
    return int(answer)


def use_for_workers() -> None:
    """Let multiprocessing start its workers with `fork` from now on."""
    plain = util.spawnv_passfds

    def started(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
        words = [os.fsdecode(word) for word in args]
        if words[-1] != WORKER or not _same_libraries(dict(os.environ)):
            return int(plain(path, args, passfds))
        streams = {number: number for number in (0, 1, 2, *passfds)}
        return fork(words[1:], str(Path.cwd()), dict(os.environ), streams)

    util.spawnv_passfds = started


def _server() -> socket.socket:
    """The line to this process's server, which ends with it."""
    if not _line:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"from tests.forkserver import main; main({theirs.fileno()})"
            command = [sys.executable, "-c", code]
            _PLAIN(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        _line.append(ours)
    return _line[0]


def _same_libraries(environment: dict[str, str]) -> bool:
    def of(variables: Any) -> dict[str, str]:
        return {k: v for k, v in variables.items() if k.startswith(READ_AT_IMPORT) and k not in ("PYTHONPATH", OFFLINE)}

    return of(environment) == of(os.environ)


def _heed_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _adopt(orphans: bool) -> None:
    """Whether this process becomes the parent of its descendants' children when those end."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0)


def main(descriptor: int) -> None:
    """Serve until nobody can order any more; each process that is ordered comes out of it to do what it is for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for those who order
    control = socket.socket(fileno=descriptor)
    set_meanwhile = _preload()
    while (order := _ordered(control)) is not None:
        os.environ.clear()
        os.environ.update(set_meanwhile | order["environment"])
        os.chdir(order["folder"])
        ours, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            control.close()
            _line[:] = [ours]
            if order["for_good"]:
                use_for_workers()
                for module in [m for m in sys.modules.values() if vars(m).get("Popen") is _PLAIN]:
                    module.Popen = Popen  # type: ignore[attr-defined]
            _end(_exit_code(order["words"]))
        ours.close()
    os._exit(0)  # those who wait for a process's output wait for its server's end, too


def _preload() -> dict[str, str]:
    """Load the libraries; the variables that they have set."""
    import importlib

    import lamdagent

    before = dict(os.environ)
    own = [found.name for found in pkgutil.walk_packages(lamdagent.__path__, "lamdagent.")]
    for name in (*own, *PRELOADED):
        if not name.endswith(("__main__", "ray_executor")):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()
    return {key: value for key, value in os.environ.items() if before.get(key) != value}


def _ordered(control: socket.socket) -> dict[str, Any] | None:
    """In the server: None, when nobody can order any more. In each process that was ordered: what it is to do."""
    while True:
        message, passed, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 32)
        if not message:
            return None
        order: dict[str, Any] = json.loads(message)
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            middle = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == middle:  # its end must not be taken for that of the parent
                time.sleep(0.001)
            if order["new_session"]:
                os.setsid()
            os.write(writing, str(os.getpid()).encode())
            os.close(reading)
            os.close(writing)
            control.close()  # before its number is given to another
            _put(passed, order["numbers"])
            return order
        for descriptor in (*passed, writing):
            os.close(descriptor)
        os.waitpid(between, 0)
        control.send(os.read(reading, 100))
        os.close(reading)


def _put(passed: list[int], numbers: list[int]) -> None:
    """Give each descriptor the number that is asked for, whichever they have."""
    away = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 500) for descriptor in passed]
    for descriptor in passed:
        os.close(descriptor)
    for descriptor, number in zip(away, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _exit_code(words: list[str]) -> int:
    """That of `python *words`, once it has been done."""
    try:
        _run(words)
    except SystemExit as ended:
        if not isinstance(ended.code, str):
            return int(ended.code or 0)
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """As Python ends, but for taking all that was loaded to pieces, which takes a second: databases are closed."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for one in gc.get_objects():
        if isinstance(one, sqlite3.Connection):
            one.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(words: list[str]) -> None:
    """What `python *words` would do now."""
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    _heed_sigint()
    time.tzset()
    for module in ("huggingface_hub.constants", "datasets.config"):
        sys.modules[module].HF_HUB_OFFLINE = os.environ.get(OFFLINE, "0") == "1"  # type: ignore[attr-defined]
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    sys.modules["__main__"] = ModuleType("__main__")
    for file in (Path(path, "sitecustomize.py") for path in paths):
        if file.exists():  # what it forbids or changes was imported long ago
            for name in [name for name in sys.modules if name.partition(".")[0] == "lamdagent"]:
                del sys.modules[name]
            runpy.run_path(str(file))
    kind, *rest = [*dropwhile(_FLAG.fullmatch, words)]
    if kind == "-m":
        sys.path[:1] = [os.getcwd(), *paths]
        sys.argv = rest
        ctypes.CDLL(None).prctl(_PR_SET_NAME, rest[0].rpartition(".")[2].encode(), 0, 0, 0)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path[:1] = ["", *paths]
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.path[:1] = [str(Path(kind).absolute().parent), *paths]
        sys.argv = [kind, *rest]
        runpy.run_path(str(Path(kind).absolute()), run_name="__main__")
