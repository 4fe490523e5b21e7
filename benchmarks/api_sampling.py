"""Overhead of our code when sampling from an API.

    python benchmarks/api_sampling.py [--latency 2] [--concurrency 64] [--rounds 20]

A server in a process of its own answers each request after a fixed latency. It does next
to nothing else, and writes down for how long it had each request: from its last byte
until the answer was given to the socket, so that a server that comes late is not our
fault. So many requests at once are so many places, and the share of their time that no
request was with the server is waiting on us:

    1 - seconds of requests with the server / (places x wall)

The wall is that of `sampling.collect`, the stage's loop: sending, the SDK, responses and
candidates on disk, the first requests that start apart, the last places that stay empty.
By the latency that was asked for instead of the one that was given, the share is larger.
On a busy machine our threads also wait for a processor, which is counted as ours; how
long they did is printed beside it. A bare client, which writes the same requests to
sockets and does nothing with what comes, shows what is left when hardly anything is
ours. Prints a Markdown row for each turn. Needs swebench-trainer-openai.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from swebench_trainer_openai import OpenAITable
from swebench_trainer_openai.service import OpenAIService

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.remote import RemoteBackend
from swebench_trainer.sampling.collect import collect
from swebench_trainer.types import Candidate

PROMPT = "def parse(value):\n    return value\n" * 600
ANSWER = "<<<<<<< SEARCH\n    return value\n=======\n    return int(value)\n" * 30


@dataclass(frozen=True)
class Served:
    """Measurements of a server.

    Attributes:
        requests: Answered.
        seconds: Sum of the times for which it had them.
        used: Seconds of a processor.
    """

    requests: int
    seconds: float
    used: float


class Endpoint(asyncio.Protocol):
    """One connection that only reads the length of a request."""

    def __init__(self, latency: float, had: list[float]) -> None:
        self._latency = latency
        self._had = had
        self._missing = 0
        choice = {"message": {"role": "assistant", "content": ANSWER}}
        choices = [{"index": 0, "finish_reason": "stop", **choice}]
        usage = {"prompt_tokens": 6000, "completion_tokens": 600}
        body = json.dumps({"choices": choices, "usage": usage}).encode()
        head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        self._answer = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def connection_made(self, transport: Any) -> None:
        """Store the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Count down to the end of a request."""
        if not self._missing:
            head, _, _ = data.partition(b"\r\n\r\n")
            length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            self._missing = len(head) + 4 + int(length)
        self._missing -= len(data)
        if not self._missing:
            loop = asyncio.get_running_loop()
            loop.call_later(self._latency, self._respond, time.monotonic())

    def _respond(self, begin: float) -> None:
        self._transport.write(self._answer)
        self._had.append(time.monotonic() - begin)


def serve(latency: float, pipe: Any) -> None:
    """Serve requests and report measurements until stopped."""
    had: list[float] = []

    async def serving() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Endpoint(latency, had), "127.0.0.1", 0, backlog=1000
        )
        pipe.send(server.sockets[0].getsockname()[1])
        over, used = asyncio.Event(), [0.0]

        def tell() -> None:
            if not pipe.recv():
                over.set()
                return
            now = time.process_time()
            pipe.send(Served(len(had), sum(had), now - used[0]))
            used[0] = now
            had.clear()

        loop.add_reader(pipe.fileno(), tell)
        await over.wait()

    asyncio.run(serving())


def starved() -> float:
    """Seconds that our runnable threads waited for a CPU."""
    files = Path("/proc/self/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[1]) for file in files) / 1e9


def ours(port: int, requests: int, concurrency: int) -> float:
    """Sample a number of candidates; `starved` is measured at the last one."""
    waited = 0.0
    table = OpenAITable(
        name="m",
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key_env="",
        concurrency=concurrency,
    )
    asked = [
        SampleRequest(f"issue-{n // 8}", n % 8, PROMPT, 1024, 0.8, 0.95, seed=n)
        for n in range(requests)
    ]

    def candidate(sample: Sample) -> Candidate:
        return Candidate(sample.instance_id, sample.sample, "m", sample.text, "")

    def done(_: str, count: int, of: int, __: str) -> None:
        nonlocal waited
        if count == of:  # the request thread is still running
            waited = starved()

    with tempfile.TemporaryDirectory() as folder:
        backend = RemoteBackend(table, OpenAIService)
        backend.keep_responses(Path(folder))
        count = len(
            collect(
                lambda: backend.open_sampler(None, batch_size=1),
                asked,
                candidate,
                Path(folder, "candidates.jsonl"),
                done,
            )
        )
    assert count == requests, f"{requests - count} answers were lost"
    return waited


def bare(port: int, requests: int, concurrency: int) -> float:
    """The same requests without an SDK and without processing the answers."""
    body = json.dumps({"messages": [{"role": "user", "content": PROMPT}]}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    sent = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def place(count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count):
            writer.write(sent)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
        writer.close()

    async def places() -> None:
        count = requests // concurrency
        await asyncio.gather(*(place(count) for _ in range(concurrency)))

    asyncio.run(places())
    return starved()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=2.0)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turns", type=int, default=1)
    options = parser.parse_args()
    context = get_context("fork")
    pipe, theirs = context.Pipe()
    server = context.Process(target=serve, args=(options.latency, theirs))
    server.start()
    places, requests = options.concurrency, options.concurrency * options.rounds

    def turn(name: str, client: Callable[[int, int, int], float]) -> None:
        pipe.send(True)
        pipe.recv()
        waited = -starved()
        start, used = time.monotonic(), time.process_time()
        waited += client(port, requests, places)
        wall, used = time.monotonic() - start, time.process_time() - used
        pipe.send(True)
        served: Served = pipe.recv()
        assert served.requests == requests
        waiting = 1 - served.seconds / (places * wall)
        nominal = 1 - requests * options.latency / (places * wall)
        print(
            f"| {name} | {requests:,} | {places} | {options.latency:g} s | {wall:.1f} s "
            f"| {waiting:.1%} | {nominal:.1%} | {1000 * used / requests:.2f} ms "
            f"| {used / wall:.1%} | {waited:.1f} s | {1000 * served.used / requests:.2f} ms "
            f"| {os.getloadavg()[0]:.1f} |",
            flush=True,
        )

    try:
        port = pipe.recv()
        ours(port, places, places)  # imports
        versions = ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("openai", "httpx2")
        )
        print(f"Python {platform.python_version()}, {versions}\n")
        print(
            "| client | requests | at once | latency | wall | waiting on us "
            "| by the latency asked for | CPU each | of a core | no processor "
            "| server's CPU each | load |"
        )
        print(f"|{' --- |' * 12}")
        for _ in range(options.turns):
            turn("bare", bare)
            turn("ours", ours)
    finally:
        pipe.send(False)
        server.join()


if __name__ == "__main__":
    main()
