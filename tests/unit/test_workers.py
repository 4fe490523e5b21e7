"""Plain `pytest` runs in several workers: who has what, by the tests' own conftest."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

FILES = ("docker/test_a.py", "docker/test_b.py", "test_c.py", "test_d.py")
TEST = """\
import os, time
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    time.sleep(0.02)
    with open("seen", "a") as seen:
        print(__file__, os.environ["PYTEST_XDIST_WORKER"], file=seen)
"""


def test_a_file_has_one_worker_and_so_has_all_that_uses_docker(tmp_path):
    for name in FILES:
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEST)
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ("-p", "xdist", "-n", "2", "--dist", "loadfile")
    command = [sys.executable, "-m", "pytest", *options]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert "16 passed" in done.stdout, done.stdout + done.stderr
    workers: dict[str, set[str]] = {}
    for line in (tmp_path / "seen").read_text().splitlines():
        path, worker = line.split()
        name = str(Path(path).relative_to(tmp_path / "tests"))
        workers.setdefault(name, set()).add(worker)
    assert workers.keys() == set(FILES)
    assert all(len(found) == 1 for found in workers.values())
    assert workers["docker/test_a.py"] == workers["docker/test_b.py"]
    assert workers["docker/test_a.py"] != workers["test_c.py"]
