"""A run directory has one owner at a time, and none after the owner dies."""

import os
import signal
import subprocess
import sys

import pytest

from swebench_trainer.errors import StageError
from swebench_trainer.store.locks import owned

HOLD = (
    "import sys, time; from pathlib import Path\n"
    "from swebench_trainer.store.locks import owned\n"
    "with owned(Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def owner(tmp_path):
    path = tmp_path / "run" / "lock.json"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_with_the_owner_named(owner):
    path, process = owner
    refused = pytest.raises(StageError, match=f"in use by process {process.pid} on ")
    with refused, owned(path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(owner):
    path, process = owner
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with owned(path):
        assert f'"pid": {os.getpid()}' in path.read_text()
