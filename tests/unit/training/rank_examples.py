"""Training functions for the ranks, in a module that they can import."""

from __future__ import annotations

import atexit
import os
import signal
import time
from dataclasses import replace

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.training.sft import train_sft


def is_first() -> bool:
    return os.environ["RANK"] == "0"


def fail_in_the_second(_table, _rows, _settings, _request):
    if not is_first():
        raise ValueError("out of luck")
    time.sleep(600)


def lack_something(_table, _rows, _settings, _request):
    raise PrerequisiteError("There is no such thing.", hint="pip install thing")


def die_in_the_second(_table, _rows, _settings, _request):
    if not is_first():
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def work_without_end(_table, _rows, _settings, request):
    (request.out / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
    request.step(1, 2, "at work")
    time.sleep(600)


def train_and_abort_at_the_end(table, rows, settings, request):
    weights = train_sft(table, rows, settings, request)
    atexit.register(os.abort)
    return weights


def train_and_hang_after_five(table, rows, settings, request):
    def step(done: int, total: int, word: str) -> None:
        request.step(done, total, word)
        if done == 5:
            time.sleep(600)

    train_sft(table, rows, settings, replace(request, step=step))
