"""What every test has: a cache and a secret of its own, never the user's."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How busy this machine is says nothing about what is tested.
settings.register_profile(
    "busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")

# The models of the tests are too small for a second thread, and each core has a worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where a file system in memory has the room, the many small files of the tests go there.
MEMORY, ROOM = Path("/dev/shm"), 4 << 30


def _has_room(folder: Path) -> bool:
    if not os.access(folder, os.W_OK):
        return False
    found = os.statvfs(folder)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > ROOM


if "TMPDIR" not in os.environ and _has_room(MEMORY):
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# A shell starts background jobs deaf to Ctrl-C, and the programs of the tests would be, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Relative to the root, as in the ids of its tests.
DOCKER = "tests/docker/"


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory):
    """Processes that a test starts inherit it; tests that compare runs take their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def warm_server():
    """Starts programs without their imports; see `tests/warm.py`."""
    from tests.warm import WarmServer

    with closing(WarmServer()) as server:
        yield server


_loaded = 0


def pytest_runtest_setup() -> None:
    """Takes libraries out of the garbage collector's sight as soon as they are loaded.

    A trainer collects at its end, and walking through a million objects of torch and
    transformers would be two thirds of what training a tiny model costs.
    """
    global _loaded
    if len(sys.modules) != _loaded:
        _loaded = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: a worker, of about a gigabyte, for each core that this process may use.

    With Docker there is one more, because one of them mostly waits for containers. With a GPU
    there is one process: its memory is measured, and others would use it too.
    """
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    return min(len(os.sched_getaffinity(0)), 8) + Path("/var/run/docker.sock").exists()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`: one worker has a file's fixtures, one has all that counts containers.

    pytest-xdist's own groups are written into `Item._nodeid`, which pytest 9.2 no longer reads.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return DOCKER if file.startswith(DOCKER) else file

    return Scheduling(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rewrite-golden` writes the golden files instead of comparing with them."""
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the prompts of tests/golden anew",
    )
