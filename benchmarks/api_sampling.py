"""How much of the time of sampling from an API is spent waiting on us.

    python benchmarks/api_sampling.py [--latency 2] [--concurrency 64] [--rounds 20]

A local server in a process of its own answers each request after a fixed latency. With
so many requests at once, nothing can be faster than requests x latency / concurrency;
what takes longer is ours: the SDK, writing each response to disk, and the sampler; or the
machine's, which a bare client shows: the same requests written to sockets, and nothing
done with what comes. Prints a Markdown row. Needs swebench-trainer-openai.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import platform
import resource
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from swebench_trainer_openai import OpenAITable
from swebench_trainer_openai.service import OpenAIService

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.remote import RemoteBackend
from swebench_trainer.remote.testing import Call, LocalService, Response

PROMPT = "def parse(value):\n    return value\n" * 600
ANSWER = "<<<<<<< SEARCH\n    return value\n=======\n    return int(value)\n" * 30


def serve(latency: float, address: Any, over: Any) -> None:
    """Serves until told otherwise."""

    def answer(_: int, call: Call) -> Response:
        message = {"role": "assistant", "content": ANSWER}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        usage = {"prompt_tokens": 6000, "completion_tokens": 600}
        return Response({"choices": choices, "usage": usage})

    with LocalService(answer, latency=latency) as service:
        address.put(service.url)
        over.wait()


def measure(url: str, requests: int, concurrency: int) -> tuple[float, float]:
    """Seconds of wall and of processor time for so many answers."""
    table = OpenAITable(
        name="m", base_url=f"{url}/v1", api_key_env="", concurrency=concurrency
    )
    asked = [
        SampleRequest(f"issue-{n // 8}", n % 8, PROMPT, 1024, 0.8, 0.95, seed=n)
        for n in range(requests)
    ]
    with tempfile.TemporaryDirectory() as folder:
        backend = RemoteBackend(table, OpenAIService)
        backend.keep_responses(Path(folder))
        sampler = backend.open_sampler(None, batch_size=1)
        used, start = _processor_time(), time.monotonic()
        count = sum(1 for _ in sampler.sample(asked))
        seconds = time.monotonic() - start
        used = _processor_time() - used
        sampler.close()
    assert count == requests, f"{requests - count} answers were lost"
    return seconds, used


def bare(url: str, requests: int, concurrency: int) -> float:
    """Seconds that a client without an SDK, and without any use for the answers, takes."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"messages": [{"role": "user", "content": PROMPT}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n"
    sent = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def slot(count: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(count):
            writer.write(sent)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
        writer.close()

    async def slots() -> None:
        count = requests // concurrency
        await asyncio.gather(*(slot(count) for _ in range(concurrency)))

    start = time.monotonic()
    asyncio.run(slots())
    return time.monotonic() - start


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=2.0)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    context = get_context("fork")
    address: Any = context.Queue()
    over: Any = context.Event()
    server = context.Process(target=serve, args=(options.latency, address, over))
    server.start()
    try:
        url = address.get(timeout=30)
        measure(url, options.concurrency, options.concurrency)  # imports, connections
        requests = options.concurrency * options.rounds
        least = bare(url, requests, options.concurrency)
        seconds, used = measure(url, requests, options.concurrency)
    finally:
        over.set()
        server.join()
    ideal = requests * options.latency / options.concurrency
    share = (seconds - ideal) / seconds
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("openai", "httpx2")
    )
    print(f"Python {platform.python_version()}, {versions}\n")
    print(
        "| requests | at once | latency | ideal | bare client | wall | waiting on us "
        "| beyond the bare client | CPU each |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print(
        f"| {requests:,} | {options.concurrency} | {options.latency:g} s | {ideal:.1f} s "
        f"| {least:.1f} s | {seconds:.1f} s | {share:.1%} | {(seconds - least) / seconds:.1%} "
        f"| {1000 * used / requests:.1f} ms |"
    )


if __name__ == "__main__":
    main()
