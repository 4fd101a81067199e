"""`python` and `mergekit-yaml` for shell scripts of tests: the fork server starts what they are to run.

A script of ten lines would load torch and TRL ten times. Modules that its environment forbids (a `sitecustomize.py` on
its PYTHONPATH says so) are forgotten first.
"""

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests import forkserver

SHIM = """#!{python} -IS
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect({address!r})
order = [[*{words!r}, *sys.argv[1:]], os.getcwd(), dict(os.environ)]
socket.send_fds(line, [json.dumps(order).encode()], [0, 1, 2])
sys.exit(int(line.recv(100)))
"""
COMMANDS = {"python": [], "mergekit-yaml": ["-m", "mergekit.scripts.run_yaml"]}


@contextlib.contextmanager
def on_path(folder: Path) -> Iterator[str]:
    """A value of PATH that finds them first; `folder` is theirs, and its path must be short: a socket lies in it."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listening:
        listening.bind(address := str(folder / "line"))
        listening.listen()
        for name, words in COMMANDS.items():
            (folder / name).write_text(SHIM.format(python=sys.executable, address=address, words=words))
            (folder / name).chmod(0o755)
        threading.Thread(target=_serve, args=(listening,), daemon=True).start()
        yield f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def _serve(listening: socket.socket) -> None:
    """Until the socket is closed."""
    while True:
        try:
            line, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_started, args=(line,), daemon=True).start()


def _started(line: socket.socket) -> None:
    with line:
        message, streams, _, _ = socket.recv_fds(line, 1 << 20, 3)
        words, folder, environment = json.loads(message)
        pid = forkserver.fork(words, folder, environment, dict(enumerate(streams)), for_good=False)
        for descriptor in streams:
            os.close(descriptor)
        line.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
