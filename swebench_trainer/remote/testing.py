"""A local server that speaks a vendor's protocol and fails like real services.

For tests of backends with a vendor's real SDK. `answer` returns the response to each
request, including faults:

    with LocalService(answer, key="sk-0123456789") as service:
        backend = make(base_url=service.url)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from swebench_trainer.contracts import Backend, Sample, SampleRequest
from swebench_trainer.errors import TrainerError
from swebench_trainer.remote.event_loop import EventLoopThread


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
    sampler = backend.open_sampler(None, batch_size=1)
    found = {}
    try:
        for sample in sampler.sample(requests):
            found[sample.instance_id, sample.sample] = sample
    except TrainerError as error:
        return found, error
    finally:
        sampler.close()
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
        self._at_once = 0
        self.calls: list[Call] = []
        self.most = 0

    def __enter__(self) -> LocalService:
        self._loop = EventLoopThread()
        started = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)
        self._server = self._loop.start(started).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.close(self._stop())

    async def _stop(self) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        """URL of the server, without a path."""
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        over = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        try:
            with contextlib.suppress(*over):
                while await self._respond(await _read(reader), writer):
                    pass
        finally:
            writer.close()

    async def _respond(self, call: Call, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; returns whether the connection stays open."""
        number = len(self.calls)
        self.calls.append(call)
        self._at_once += 1
        self.most = max(self.most, self._at_once)
        try:
            response = self._answer(number, call)
            await asyncio.sleep(self._latency + response.stall)
        finally:
            self._at_once -= 1
        body = response.body
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            **response.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {response.status} -\r\n{lines}\r\n".encode()
        writer.write(head + (content[: len(content) // 2] if response.cut else content))
        await writer.drain()
        return not response.cut


async def _read(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split(" ")
    return Call(method, path, headers, json.loads(content) if content else {})
