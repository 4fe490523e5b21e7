"""One process of a training: `python -m swebench_trainer.training.distributed.rank`.

The stage starts torch's elastic agent with this module, and the agent starts one process
per rank with it. Each asks the kernel to be killed once its parent is gone, so that
nothing keeps training for a stage that was killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path

from swebench_trainer.store.jsonl import RowWriter, write_json
from swebench_trainer.store.locks import lock_shared
from swebench_trainer.training.distributed import ranks
from swebench_trainer.training.distributed.train_job import TrainJob, write_error

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Runs the agent (`PROCESSES FOLDER PARENT`) or a rank (`FOLDER`)."""
    if len(arguments) == 3:
        processes, folder, parent = arguments
        _die_with(int(parent))
        return _run_agent(int(processes), folder)
    _die_with(os.getppid())
    return _run_rank(Path(arguments[0]))


def _run_agent(processes: int, folder: str) -> int:
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


def _run_rank(folder: Path) -> int:
    rank = int(os.environ["RANK"])
    log_path = folder / f"rank-{rank}.log"
    with (folder / "alive").open("ab") as alive:
        lock_shared(alive)  # held until this process ends
        with log_path.open("wb", buffering=0) as log:
            os.dup2(log.fileno(), sys.stdout.fileno())
            os.dup2(log.fileno(), sys.stderr.fileno())
        try:
            _train(folder, rank)
            ranks.leave()
        except Exception as error:  # the stage reports it, whatever it is
            traceback.print_exc()
            write_error(folder / f"error-{rank}.pickle", error, log_path)
            # Skips Python's cleanup, in which NCCL would wait for the other ranks.
            sys.stderr.flush()
            os._exit(1)
    return 0


def _train(folder: Path, rank: int) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    job = TrainJob.read(folder / "job.pickle")
    if rank:
        job.run(lambda *_: None, first=False)
        return
    with RowWriter(folder / "progress.jsonl") as progress:

        def step(done: int, total: int, word: str) -> None:
            progress.write({"done": done, "total": total, "word": word})

        job.run(step)


def _die_with(parent: int) -> None:
    """Has the kernel kill this process once its parent is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before the call
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
