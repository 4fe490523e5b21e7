"""A local server that speaks a vendor's protocol and fails like real services.

For tests of backends with a vendor's real SDK. `answer` returns the response to each
request, including faults:

    with LocalService(answer, key="sk-0123456789") as service:
        backend = make(base_url=service.url)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from swebench_trainer.contracts import Backend, Sample, SampleRequest
from swebench_trainer.errors import TrainerError


@dataclass(frozen=True)
class Call:
    """A received request.

    Attributes:
        headers: Headers with lower-case names.
        body: The JSON body; empty if the request has none.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Response:
    """A response; a `str` body is sent unchanged.

    Attributes:
        stall: Seconds of delay before the response.
        cut: Whether the connection closes halfway through the body.
    """

    body: Mapping[str, Any] | str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stall: float = 0.0
    cut: bool = False


def drawn(
    backend: Backend, requests: Sequence[SampleRequest]
) -> tuple[dict[tuple[str, int], Sample], TrainerError | None]:
    """Sample from a backend's base model.

    Returns:
        The answers by instance id and sample, and the error that stopped it, if any.
    """
    found = {}
    with closing(backend.open_sampler(None, batch_size=1)) as sampler:
        try:
            for sample in sampler.sample(requests):
                found[sample.instance_id, sample.sample] = sample
        except TrainerError as error:
            return found, error
    return found, None


class LocalService:
    """A server that runs inside a `with` block.

    Attributes:
        calls: All received requests.
        most: Maximum number of concurrent requests.

    Args:
        answer: Returns the response to a request, given its number from 0.
        latency: Seconds until each response.
    """

    def __init__(
        self, answer: Callable[[int, Call], Response], *, latency: float = 0.0
    ) -> None:
        self._answer = answer
        self._latency = latency
        self._lock = Lock()
        self._at_once = 0
        self.calls: list[Call] = []
        self.most = 0

    def __enter__(self) -> LocalService:
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self._respond))
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """URL of the server, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def _respond(self, call: Call) -> Response:
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
            self._at_once += 1
            self.most = max(self.most, self._at_once)
        try:
            with self._lock:
                response = self._answer(number, call)
            time.sleep(self._latency + response.stall)
        finally:
            with self._lock:
                self._at_once -= 1
        return response


class _Server(ThreadingHTTPServer):
    request_queue_size = 1000

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close their connection early."""


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of a connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet

    def __init__(self, respond: Callable[[Call], Response], *args: Any) -> None:
        self._respond = respond
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer one request."""
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.loads(content) if content else {}
        response = self._respond(Call(self.command, self.path, headers, body))
        text = response.body
        content = (text if isinstance(text, str) else json.dumps(text)).encode()
        self.send_response(response.status, "-")
        sent = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            **response.headers,
        }
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if response.cut else content)
        self.close_connection |= response.cut

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""
