"""A model behind an OpenAI-compatible server: `transformers serve` on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_CALL = "from transformers.cli.transformers import main; main()"
_TRIES, _PAUSE = 1500, 0.2


@contextlib.contextmanager
def served_model(directory: Path, log: Path) -> Iterator[str]:
    """Serve a model on a CPU for as long as the context lasts.

    Needs `transformers[serving]`. The model's name is its directory's.

    Args:
        directory: Directory of a model and its tokenizer.
        log: File for the server's output.

    Yields:
        The server's address, without `/v1`.

    Raises:
        RuntimeError: The server exits or does not answer; the message has its log.
    """
    url = f"http://127.0.0.1:{(port := _free_port())}"
    command = [sys.executable, "-c", _CALL, "serve", str(directory)]
    with log.open("wb") as said:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            stdout=said,
            stderr=said,
            # With more threads than free cores they wait for each other.
            env={"OMP_NUM_THREADS": "1", **os.environ, "HF_HUB_OFFLINE": "1"},
        )
    try:
        _wait(server, f"{url}/health", log)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=60)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], health: str, log: Path) -> None:
    for _ in range(_TRIES):
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError):
            urllib.request.urlopen(health).close()  # noqa: S310 - our own server
            return
        time.sleep(_PAUSE)
    raise RuntimeError(f"transformers serve does not answer: {log.read_text()}")
