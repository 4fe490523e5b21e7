"""A local server that speaks a wire format, and fails as real services do.

For tests of backends that go through a vendor's real SDK. It says how a response looks
(`answer`) and what goes wrong with the n-th request (`trouble`):

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
from swebench_trainer.remote.event_loop import LoopThread


@dataclass(frozen=True)
class Call:
    """A request as it came.

    Attributes:
        headers: Names in lower case.
        body: Its JSON, empty where there is none.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Response:
    """What is sent back; a body that is a text goes as it is.

    Attributes:
        stall: Seconds without a byte, before the body.
        cut: Whether the connection ends half-way through the body.
    """

    body: Mapping[str, Any] | str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stall: float = 0.0
    cut: bool = False


def drawn(
    backend: Backend, asked: Sequence[SampleRequest]
) -> tuple[dict[tuple[str, int], Sample], TrainerError | None]:
    """What a backend's base model answers, and the error that ended it, if one did.

    Returns:
        The answers by instance id and sample, and the error.
    """
    sampler = backend.open_sampler(None, batch_size=1)
    found = {}
    try:
        for sample in sampler.sample(asked):
            found[sample.instance_id, sample.sample] = sample
    except TrainerError as error:
        return found, error
    finally:
        sampler.close()
    return found, None


class LocalService:
    """Serves while it is entered.

    Attributes:
        calls: Every request that came.
        most: Most requests that were answered at once.

    Args:
        answer: The response to a request: what goes wrong is said here too, by the
            number of the request from 0.
        latency: Seconds that each answer takes.
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
        self._loop = LoopThread()
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
        """Address of the server, without a path."""
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
        """Answers one request; whether the connection goes on."""
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
