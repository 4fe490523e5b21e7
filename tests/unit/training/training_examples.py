"""Settings, rows and pairs that the tiny model learns from in seconds."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.types import Pair, SftRow, Status

FULL = HfTable(
    name="builtin:tiny", quantization="none", lora=False, checkpointing="none"
)
LORA = HfTable(name="builtin:tiny", quantization="none", lora={"rank": 8, "alpha": 16})
QLORA = HfTable(name="builtin:tiny", lora={"rank": 8, "alpha": 16})

SFT = SftTable(learning_rate=3e-3, epochs=3, batch_size=2, micro_batch=1, save_every=0)
DPO = DpoTable(learning_rate=5e-4, epochs=3, batch_size=2, save_every=0)

ROWS = tuple(
    SftRow(
        f"demo__demo-{n}", f"Fix issue {n}.", f"demo.py\n-value = {n}\n+value += {n}\n"
    )
    for n in range(4)
)
PAIRS = tuple(
    Pair(
        r.instance_id,
        r.prompt,
        r.completion,
        r.completion.replace("+=", "-="),
        "self-generated",
        "gold",
        "sample:0",
        Status.UNRESOLVED,
    )
    for r in ROWS
)


def request_in(
    out: Path,
    *,
    start: Path | None = None,
    max_tokens: int = 512,
    step=None,
    seed: int = 0,
) -> TrainRequest:
    out.mkdir(parents=True, exist_ok=True)
    return TrainRequest(out, start, max_tokens, seed, step or (lambda *_: None))


def tensors(weights: Path) -> dict:
    """The tensors in `adapter/` or `model/`."""
    from safetensors.torch import load_file

    (path,) = weights.glob("*.safetensors")
    return load_file(path)


def same_weights(one: Path, other: Path) -> bool:
    """Whether two directories hold the same tensors, bit for bit."""
    import torch

    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(out: Path) -> list[dict]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def stop_after(steps: int):
    """A progress callback that ends the training like a crash."""

    def step(done: int, _total: int, _word: str) -> None:
        if done == steps:
            raise KeyboardInterrupt

    return step


def die(*_: object, **__: object) -> None:
    """Kills this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(wanted: int):
    """A progress callback that kills the process at a step."""

    def step(done: int, _total: int, _word: str) -> None:
        if done == wanted:
            die()

    return step


def dies_in(train: Callable[[], object]) -> None:
    """Trains in a fork of this process, which must be killed by `die`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the tests have threads
        child = os.fork()
    if not child:
        try:
            train()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the process was not killed"
    assert os.WTERMSIG(status) == signal.SIGKILL
