"""An OpenAI-compatible chat endpoint on loopback, for tests: a real server that is told what to answer.

`Endpoint(answers)` takes a function (index of the request, request body) -> Says | Fails | Hangs | Drips.
`obedient` is such a function: it reads the prompt as a model would and picks what is offered.
`python tests/endpoint.py 8000` serves it.
"""

import json
import random
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Says:
    """A reply with this text."""

    text: str
    prompt_tokens: int = 100
    completion_tokens: int = 10


@dataclass(frozen=True)
class Fails:
    """An HTTP error."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "the endpoint is told to fail"


@dataclass(frozen=True)
class Hangs:
    """The socket is held, nothing is sent, until the endpoint closes."""


@dataclass(frozen=True)
class Drips:
    """Headers, then a blank now and then for ever: no read of a client ever times out."""


Answer = Says | Fails | Hangs | Drips
Answers = Callable[[int, Mapping[str, Any]], Answer]


def script(*answers: Answer) -> Answers:
    """These answers in order; the last one for ever after."""
    return lambda index, _: answers[min(index, len(answers) - 1)]


def obedient(index: int, request: Mapping[str, Any]) -> Says:
    """A legal choice of every numbered list and every hyperparameter in the prompt, different for each request."""
    prompt = "\n".join(m["content"] for m in request["messages"] if m["role"] == "user")
    rng = random.Random(f"{index} {prompt}")
    sections = re.split(r"^### ", prompt, flags=re.M)[1:]
    if not sections:
        return Says("SFT raised the score, merging is promising next.")
    reply: dict[str, Any] = {"reason": "looks promising"}
    for section in sections:
        head = section.splitlines()[0]
        name, numbers = head.split(" ")[0], re.findall(r"^(\d+)\. ", section, flags=re.M)
        many = re.search(r"choose (\d+) ", head)
        if numbers and many:
            reply[name] = [int(n) for n in rng.sample(numbers, int(many[1]))]
        elif numbers:
            reply[name] = int(rng.choice(numbers))
        else:
            values = re.findall(r"^- (.+)$", section, flags=re.M)
            reply[name] = json.loads(rng.choice(values))
    return Says(json.dumps(reply))


class Endpoint:
    """Serves while it is open: `with Endpoint(script(Says("hello"))) as endpoint: endpoint.url`."""

    def __init__(self, answers: Answers, port: int = 0) -> None:
        """Listen on `port` of 127.0.0.1; 0 = any free one."""
        self.answers = answers
        self.requests: list[Mapping[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _handler(self))

    @property
    def url(self) -> str:
        """What a client takes as `api_base`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "Endpoint":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        """Record the request and say what it gets."""
        with self._lock:
            self.requests.append(body)
            self.headers.append(headers)
            return self.answers(len(self.requests) - 1, body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no news."""


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Quiet."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = endpoint.answer(body, dict(self.headers))
            if isinstance(answer, Hangs):
                endpoint.closing.wait()
            elif isinstance(answer, Drips):
                self._drip()
            elif isinstance(answer, Fails):
                self._send(answer.status, {"error": {"message": answer.message}}, answer.headers)
            else:
                self._send(200, _completion(body, answer), {})

        def _send(self, status: int, content: Mapping[str, Any], headers: Mapping[str, str]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

        def _drip(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            while not endpoint.closing.wait(0.05):
                self.wfile.write(b" ")

    return Handler


def _completion(body: Mapping[str, Any], answer: Says) -> dict[str, Any]:
    total = answer.prompt_tokens + answer.completion_tokens
    usage = {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": total,
    }
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [choice],
        "usage": usage,
    }


def main(arguments: Sequence[str]) -> None:
    """Serve `obedient` until interrupted."""
    with Endpoint(obedient, port=int(arguments[0]) if arguments else 0) as endpoint:
        print(endpoint.url, flush=True)
        endpoint.closing.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
