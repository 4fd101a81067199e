"""A real proxy on the loopback that does to an MLflow server what networks and sign-ons do."""

import http.client
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = ("connection", "transfer-encoding", "content-length", "keep-alive", "host")


class Proxy:
    """Forwards everything while `mode` is `up`."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target)
        self.mode = "up"
        """`up`; `drop`, `500`, `401` for every request; `flaky` for a share of them; `lose` forwards, then drops."""
        self.broken = ""
        """500 for every path that holds this."""
        self.lost = ""
        """The answer to the next request whose path fits this regular expression is lost on its way."""
        self.left: int | None = None
        """So many more requests get through; then the line is cut."""
        self.delay = 0.0
        """Seconds before a request is looked at."""
        self.share = 0.0
        self.random = random.Random(0)
        self.uri = ""

    def fate(self, path: str) -> str:
        if self.broken and self.broken in path:
            return "500"
        if self.lost and re.search(self.lost, path):
            self.lost = ""
            return "lose"
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                return "drop"
        if self.mode != "flaky":
            return self.mode
        return self.random.choice(("drop", "500", "lose")) if self.random.random() < self.share else "up"


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    state = Proxy(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(state.delay)
            fate = state.fate(self.path)
            if fate == "drop":
                self.close_connection = True
                return
            if fate in ("500", "401"):
                self.answer(int(fate), {}, b"no")
                return
            connection = http.client.HTTPConnection(state.target.hostname or "", state.target.port, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
            try:
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                content = answer.read()
            except OSError:
                self.close_connection = True
                return
            finally:
                connection.close()
            if fate == "lose":
                self.close_connection = True
                return
            self.answer(answer.status, dict(answer.getheaders()), content)

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for key, value in headers.items():
                if key.lower() not in (*HOP, "date", "server"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.uri = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
