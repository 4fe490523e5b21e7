"""Runs a training in the stage's process, or in several others.

With several processes the stage keeps the run directory, its lock and the terminal. torch
starts a process per rank; a queue brings their progress and their errors to the stage. The
first rank writes all results, so a run can be stopped and resumed as with one process.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from swebench_trainer.contracts import StepProgress, TrainRequest
from swebench_trainer.errors import (
    PrerequisiteError,
    RecipeError,
    StageError,
    TrainerError,
)
from swebench_trainer.recipe.models import TrainTable
from swebench_trainer.store.jsonl import write_bytes
from swebench_trainer.training.distributed import ranks
from swebench_trainer.training.loop import trackers
from swebench_trainer.training.loop.training import finished
from swebench_trainer.training.models.table import HfTable

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

log = logging.getLogger(__name__)

Train = Callable[[HfTable, Sequence[Any], Any, TrainRequest], Path]
"""`train_sft`, `train_dpo`, or a similar module-level function."""

Message = TrainerError | tuple[int, int, str]
"""The error that ended a rank, or the arguments of `StepProgress`."""

_POLL = 0.1
"""Seconds between two looks at the progress."""

_GONE_WITHIN = 30.0
"""Seconds to wait for killed processes to end."""

_PR_SET_PDEATHSIG = 1


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
    if settings.processes == 1:
        with trackers.tracked(settings.trackers, request.out):
            return function(table, rows, settings, request)
    if weights := finished(request.out):
        return weights
    folder = request.out / "processes"
    _await_end(folder)
    shutil.rmtree(folder, ignore_errors=True)
    job = (function, table, list(rows), settings, replace(request, step=_ignore))
    write_bytes(folder / "job.pickle", pickle.dumps(job))
    crash = _run_ranks(settings.processes, folder, request.step)
    trained = finished(request.out)
    if crash and trained is None:
        raise crash
    if crash:  # torch's threads can abort a process after its training
        log.warning("The training is complete, but: %s", crash.message)
    assert trained is not None  # the ranks ended without an error
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


def _run_ranks(processes: int, folder: Path, step: StepProgress) -> StageError | None:
    """Runs the ranks to their end and reports their progress.

    Returns:
        The error of a rank that could not report one itself, if any.

    Raises:
        TrainerError: The first error that a rank reported.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # re-exported
    from torch.multiprocessing.spawn import ProcessExitedException, start_processes

    # The ranks find each other here, on a free port.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    messages = multiprocessing.get_context("spawn").SimpleQueue()
    running = start_processes(  # type: ignore[no-untyped-call]  # torch's is untyped
        _run_rank,
        (processes, folder, store.port, messages),
        processes,
        join=False,
        daemon=True,
    )
    try:
        while not running.join(_POLL):
            _report(messages, step)
        _report(messages, step)
    except ProcessExitedException as error:
        _report(messages, step)  # raises what the rank has reported
        ended = error.signal_name or f"exit code {error.exit_code}"
        return StageError(
            f"Process {error.error_index} of the training ended with {ended}.",
            hint=f"If it ran out of memory, lower micro_batch or processes. Run the same command again to resume. Its log: {_log(folder, error.error_index)}",
        )
    finally:
        for process in running.processes:
            process.kill()
            process.join()
    return None


def _report(messages: SimpleQueue[Message], step: StepProgress) -> None:
    """Reports new progress, and raises the first error of a rank."""
    while not messages.empty():
        message = messages.get()
        if isinstance(message, TrainerError):
            raise message
        step(*message)


def _await_end(folder: Path) -> None:
    """Waits until the ranks of a killed stage have ended; each holds a lock."""
    for path in folder.glob("rank-*.lock"):
        try:
            with FileLock(path, timeout=_GONE_WITHIN, fallback_to_soft=False):
                continue
        except Timeout:
            raise StageError(
                f"Processes of an earlier training are still running in {folder.parent}.",
                hint="Kill them, then run the same command again.",
            ) from None


def _run_rank(
    rank: int, processes: int, folder: Path, port: int, messages: SimpleQueue[Message]
) -> None:
    """Trains as one of several processes; see `torch.multiprocessing.start_processes`."""
    _die_with_the_stage()
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(processes),
        LOCAL_WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",  # the stage has the store, not rank 0
    )
    with FileLock(folder / f"rank-{rank}.lock", fallback_to_soft=False):
        with _log(folder, rank).open("wb", buffering=0) as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
        try:
            _train_as(rank, processes, folder, messages)
            ranks.leave()
        except Exception as error:  # the stage reports it, whatever it is
            traceback.print_exc()
            messages.put(_as_trainer_error(error, _log(folder, rank)))
            # Skips Python's cleanup, in which NCCL would wait for the other ranks.
            sys.stderr.flush()
            os._exit(1)


def _train_as(
    rank: int, processes: int, folder: Path, messages: SimpleQueue[Message]
) -> None:
    import torch

    threads = max(1, (os.cpu_count() or 1) // processes)
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(threads))))
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    job = pickle.loads((folder / "job.pickle").read_bytes())  # noqa: S301 - from `train`
    function, table, rows, settings, request = job
    if rank == 0:
        request = replace(request, step=lambda *step: messages.put(step))
    with trackers.tracked(settings.trackers, request.out, first=rank == 0):
        function(table, rows, settings, request)


def _die_with_the_stage() -> None:
    """Has the kernel kill this process once the stage is gone.

    torch asks for SIGINT, which a rank that waits for others would not notice.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    stage = multiprocessing.parent_process()
    if stage is None or os.getppid() != stage.pid:  # it ended before the call
        os._exit(1)


def _as_trainer_error(error: Exception, log: Path) -> TrainerError:
    if isinstance(error, TrainerError):
        return error
    return StageError(
        f"A process of the training failed: {type(error).__name__}: {error}",
        hint=f"See {log}",
    )


def _log(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.log"


def _ignore(_done: int, _total: int, _word: str) -> None:
    """Replaces the stage's progress callback, which other processes cannot call."""
