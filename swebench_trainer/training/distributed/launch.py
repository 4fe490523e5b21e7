"""Training in several processes, of which the stage's own is none.

The stage keeps the run directory, its lock and the terminal. It writes the job to
a file, starts torch's elastic agent, which starts a process per rank (see `rank`),
reads its progress from a file of the first, and raises what goes wrong in one of
them. Everything that a training leaves is written by the first rank, so a run can
be stopped and gone on with as if there were one process.
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

from swebench_trainer import errors
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
from swebench_trainer.training.distributed.train_job import Job, Train
from swebench_trainer.training.loop import trackers
from swebench_trainer.training.loop import training as fit
from swebench_trainer.training.models.table import HfTable

log = logging.getLogger(__name__)

_POLL = 0.1
"""Seconds between looks at the processes."""

_GONE_WITHIN = 30.0
"""Seconds that killed processes may take to be gone."""


def train(
    function: Train,
    table: HfTable,
    rows: Sequence[Any],
    settings: TrainTable,
    request: TrainRequest,
) -> Path:
    """Calls a training function, in as many processes as the settings say.

    Args:
        function: Of a module, since other processes have to find it.
        table: The recipe's `[model]`.
        rows: What to train on.
        settings: The recipe's `[sft]` or `[dpo]`.
        request: What the stage asks for.

    Raises:
        PrerequisiteError: See `check`.
        TrainerError: What a rank has raised; also see the training function.
        StageError: A rank has failed in another way; its log is named.
    """
    check(table, settings)
    job = Job(function, table, rows, settings, request)
    if settings.processes == 1:
        return job.run(request.step)
    if weights := fit.finished(request.out):
        return weights
    folder = request.out / "processes"
    _await_end(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job.write(folder / "job.pickle")
    code = _run(settings.processes, folder, request)
    trained = fit.finished(request.out)
    if trained is None or any(folder.glob("error-*.json")):
        raise _what_failed(folder)
    if code:  # torch's threads may abort a process that is about to end
        log.warning("The training is complete. Then: %s", _what_failed(folder).message)
    shutil.rmtree(folder)
    return trained


def check(table: HfTable, settings: TrainTable) -> None:
    """Checks that this machine has what the settings ask for, before anything runs.

    Raises:
        RecipeError: All weights are to be trained, and to be sharded; or adapters, with Muon.
        PrerequisiteError: There are not as many GPUs or none to shard over, or no package of a tracker.
    """
    if settings.sharding != "none" and table.lora is False:
        raise RecipeError(
            "Sharded weights are trained through adapters alone, and [model] lora is false.",
            hint='Set lora, or sharding = "none".',
        )
    if settings.optimizer == "muon" and table.lora is not False:
        raise RecipeError(
            'optimizer = "muon" is for whole weights, and [model] lora trains adapters.',
            hint='Set optimizer = "adamw", or [model] lora = false.',
        )
    trackers.check(settings.trackers)
    if settings.processes > 1:
        _require_devices(settings)


def _require_devices(settings: TrainTable) -> None:
    import torch

    processes, devices = settings.processes, torch.cuda.device_count()
    if settings.sharding != "none" and not torch.cuda.is_available():
        raise PrerequisiteError(  # accelerate would train whole weights, and say nothing
            "Sharded weights need GPUs, and there are none.",
            hint='Set sharding = "none".',
        )
    if torch.cuda.is_available() and devices < processes:
        raise PrerequisiteError(
            f"processes = {processes} needs as many GPUs, and there are {devices}.",
            hint=f"Set processes = {devices}; batch_size stays as it is.",
        )


def _run(processes: int, folder: Path, request: TrainRequest) -> int:
    """Runs the ranks to their end, and passes their progress on."""
    path = folder / "progress.jsonl"
    path.touch()
    with path.open("rb") as progress, _agent(processes, folder) as agent:
        code = None
        while code is None:
            code = agent.poll()  # before the rows: the last ones come before the end
            for row in _new_rows(progress):
                request.step(row["done"], row["total"], row["word"])
            if code is None:
                time.sleep(_POLL)
    return code


def _new_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The rows that were added to a file since it was last asked."""
    while (line := file.readline()).endswith(b"\n"):
        yield json.loads(line)
    file.seek(-len(line), os.SEEK_CUR)


@contextmanager
def _agent(processes: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the agent; at the end it is gone, and the ranks with it."""
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
            start_new_session=True,  # Ctrl-C is for the stage, which ends them
        )
    try:
        yield agent
    finally:
        agent.kill()  # and the kernel kills the ranks
        agent.wait()
        _await_end(folder)


def _await_end(folder: Path) -> None:
    """Waits until no rank is left, which all hold a lock while they live."""
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
                        f"Processes of an earlier training still work in {folder.parent}.",
                        hint="End them, then run the same command again.",
                    ) from None
                time.sleep(_POLL)
            else:
                return


def _what_failed(folder: Path) -> TrainerError:
    """The first error of a rank, as an error of ours."""
    found = [
        (read_json(path), path.with_name(f"rank-{path.stem.split('-')[1]}.log"))
        for path in folder.glob("error-*.json")
    ]
    for error, log in sorted(found, key=lambda pair: float(pair[0]["when"])):
        if error["kind"]:
            kind: type[TrainerError] = getattr(errors, error["kind"], StageError)
            return kind(error["message"], hint=error["hint"])
        return StageError(
            f"A process of the training failed: {error['message']}", hint=f"See {log}"
        )
    codes: dict[str, int] = read_json(folder / "failures.json") or {}
    for rank, code in codes.items():
        if code < 0:
            return StageError(
                f"Process {rank} of the training was killed by {signal.Signals(-code).name}.",
                hint="If it was for memory, lower micro_batch or processes. Run the same command again to go on.",
            )
    return StageError(
        "The processes of the training ended without a result.",
        hint=f"See {folder / 'agent.log'}",
    )
