"""One process of a training in several: `python -m swebench_trainer.training.distributed.rank`.

The stage starts torch's elastic agent from here, and the agent one process per
rank. Each asks the kernel to be killed when the one that started it is gone, so
that nothing trains on for a stage that was killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from swebench_trainer.errors import TrainerError
from swebench_trainer.store.jsonl import RowWriter, write_json
from swebench_trainer.store.locks import lock_shared
from swebench_trainer.training.distributed import ranks
from swebench_trainer.training.distributed.train_job import Job

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Runs the agent (`PROCESSES FOLDER PARENT`) or a rank (`FOLDER`)."""
    if len(arguments) == 3:
        processes, folder, parent = arguments
        _die_with(int(parent))
        return _agent(int(processes), folder)
    _die_with(os.getppid())
    return _rank(Path(arguments[0]))


def _agent(processes: int, folder: str) -> int:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--standalone", "--local-addr", "127.0.0.1", "--max-restarts", "0"]
    options += ["--nproc-per-node", str(processes), "-m", __spec__.name, folder]
    try:
        run.main(options)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        write_json(Path(folder, "failures.json"), codes)
        return 1
    return 0


def _rank(folder: Path) -> int:
    rank = int(os.environ["RANK"])
    with (folder / "alive").open("ab") as alive:
        lock_shared(alive)  # as long as this process lives
        with (folder / f"rank-{rank}.log").open("wb", buffering=0) as log:
            os.dup2(log.fileno(), sys.stdout.fileno())
            os.dup2(log.fileno(), sys.stderr.fileno())
        try:
            _train(folder, rank)
            ranks.leave()
        except Exception as error:  # whatever it is, the stage must hear of it
            traceback.print_exc()
            write_json(folder / f"error-{rank}.json", _described(error))
            # Without what Python does at its end: NCCL would wait for the others.
            sys.stderr.flush()
            os._exit(1)
    return 0


def _train(folder: Path, rank: int) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    job = Job.read(folder / "job.pickle")
    if rank:
        job.run(lambda *_: None, first=False)
        return
    with RowWriter(folder / "progress.jsonl") as progress:
        job.run(
            lambda done, total, word: progress.write(
                {"done": done, "total": total, "word": word}
            )
        )


def _described(error: Exception) -> dict[str, object]:
    name, when = type(error).__name__, time.time()
    if isinstance(error, TrainerError):
        return {
            "kind": name,
            "when": when,
            "message": error.message,
            "hint": error.hint,
        }
    return {"kind": "", "when": when, "message": f"{name}: {error}"}


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when the one that started it is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the kernel knew
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
