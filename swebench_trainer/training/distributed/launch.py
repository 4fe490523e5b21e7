"""Runs a training in the stage's process, or in several others.

With several processes the stage keeps the run directory, its lock and the terminal. It
writes the job to a file and starts torch's elastic agent, which starts a process per rank
(see `rank`). It reads their progress from a file, and raises their first error. The first
rank writes all results, so a run can be stopped and resumed as with one process.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.errors import (
    PrerequisiteError,
    RecipeError,
    StageError,
    TrainerError,
)
from swebench_trainer.recipe.models import TrainTable
from swebench_trainer.store.jsonl import read_json
from swebench_trainer.store.locks import try_lock
from swebench_trainer.training.distributed.train_job import Train, TrainJob, first_error
from swebench_trainer.training.loop import trackers
from swebench_trainer.training.loop.training import finished
from swebench_trainer.training.models.table import HfTable

log = logging.getLogger(__name__)

_POLL = 0.1
"""Seconds between polls of the processes."""

_GONE_WITHIN = 30.0
"""Seconds to wait for killed processes to end."""


def train(
    function: Train,
    table: HfTable,
    rows: Sequence[Any],
    settings: TrainTable,
    request: TrainRequest,
) -> Path:
    """Calls a training function in the number of processes that the settings ask for.

    Args:
        function: A module-level function, which other processes can import.
        table: The recipe's `[model]`.
        rows: Rows to train on.
        settings: The recipe's `[sft]` or `[dpo]`.
        request: The stage's request.

    Raises:
        PrerequisiteError: See `check`.
        TrainerError: The error of a rank; see the training function.
        StageError: A rank failed in another way; the hint names its log.
    """
    check(table, settings)
    job = TrainJob(function, table, rows, settings, request)
    if settings.processes == 1:
        return job.run(request.step)
    if weights := finished(request.out):
        return weights
    folder = request.out / "processes"
    _await_end(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job.write(folder / "job.pickle")
    code = _run(settings.processes, folder, request)
    trained = finished(request.out)
    if trained is None or any(folder.glob("error-*.pickle")):
        raise _first_error(folder)
    if code:  # torch's threads can abort a process after its training
        error = _first_error(folder)
        log.warning("The training is complete, but: %s", error.message)
    shutil.rmtree(folder)
    return trained


def check(table: HfTable, settings: TrainTable) -> None:
    """Checks before the run that this machine can train with these settings.

    Raises:
        RecipeError: `sharding` needs adapters, or `optimizer = "muon"` needs `lora = false`.
        PrerequisiteError: GPUs or the package of a tracker are missing.
    """
    if settings.sharding != "none" and table.lora is False:
        raise RecipeError(
            "sharding only works with adapters, and [model] lora is false.",
            hint='Set lora, or sharding = "none".',
        )
    if settings.optimizer == "muon" and table.lora is not False:
        raise RecipeError(
            'optimizer = "muon" only trains whole weights, and [model] lora trains adapters.',
            hint='Set optimizer = "adamw", or [model] lora = false.',
        )
    trackers.check(settings.trackers)
    if settings.processes > 1:
        _require_devices(settings)


def _require_devices(settings: TrainTable) -> None:
    import torch

    processes, devices = settings.processes, torch.cuda.device_count()
    if settings.sharding != "none" and not torch.cuda.is_available():
        raise PrerequisiteError(  # accelerate would silently train unsharded weights
            "sharding needs GPUs, and this machine has none.",
            hint='Set sharding = "none".',
        )
    if torch.cuda.is_available() and devices < processes:
        raise PrerequisiteError(
            f"processes = {processes} needs {processes} GPUs, and this machine has {devices}.",
            hint=f"Set processes = {devices}; batch_size can stay the same.",
        )


def _run(processes: int, folder: Path, request: TrainRequest) -> int:
    """Runs the ranks to their end and reports their progress.

    Returns:
        Exit code of the agent.
    """
    path = folder / "progress.jsonl"
    path.touch()
    with path.open("rb") as progress, _agent(processes, folder) as agent:
        code = None
        while code is None:
            code = agent.poll()  # before reading, so that no row is missed
            for row in _new_rows(progress):
                request.step(row["done"], row["total"], row["word"])
            if code is None:
                time.sleep(_POLL)
    return code


def _new_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The complete rows that were added to a file since the last call."""
    while (line := file.readline()).endswith(b"\n"):
        yield json.loads(line)
    file.seek(-len(line), os.SEEK_CUR)


@contextmanager
def _agent(processes: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the agent, and ends it and the ranks on exit."""
    command = [sys.executable, "-m", "swebench_trainer.training.distributed.rank"]
    command += [str(processes), str(folder), str(os.getpid())]
    threads = max(1, (os.cpu_count() or 1) // processes)
    with (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            start_new_session=True,  # the stage handles Ctrl-C and ends the ranks
        )
    try:
        yield agent
    finally:
        agent.kill()  # the kernel then kills the ranks
        agent.wait()
        _await_end(folder)


def _await_end(folder: Path) -> None:
    """Waits until every rank has ended; each holds a lock while it lives."""
    path = folder / "alive"
    if not path.exists():
        return
    deadline = time.monotonic() + _GONE_WITHIN
    with path.open("ab") as alive:
        while True:
            try:
                try_lock(alive)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StageError(
                        f"Processes of an earlier training are still running in {folder.parent}.",
                        hint="Kill them, then run the same command again.",
                    ) from None
                time.sleep(_POLL)
            else:
                return


def _first_error(folder: Path) -> TrainerError:
    """The first error of a rank; otherwise the signal that killed one."""
    if error := first_error(folder.glob("error-*.pickle")):
        return error
    codes: dict[str, int] = read_json(folder / "failures.json") or {}
    for rank, code in codes.items():
        if code < 0:
            return StageError(
                f"Process {rank} of the training was killed by {signal.Signals(-code).name}.",
                hint="If it ran out of memory, lower micro_batch or processes. Run the same command again to resume.",
            )
    return StageError(
        "The processes of the training ended without a result.",
        hint=f"See {folder / 'agent.log'}",
    )
