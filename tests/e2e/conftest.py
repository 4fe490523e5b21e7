"""Whole runs in processes of their own, with a really installed plugin."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "recipes" / "quickstart"

RECIPE = f"""\
schema_version = 1
name = "small"

[data]
use = "task-repo"
path = "{QUICKSTART}"
include = [
  "quickstart__foldline-1", "quickstart__foldline-2",
  "quickstart__daytally-1", "quickstart__daytally-2", "quickstart__daytally-3",
]

[model]
use = "parrot"

[sft]
[generate]
samples = 6
[grade]
use = "believer"
counter_runs = false
[pairs]
use = "first-pass"
[dpo]
[evaluate]
splits = ["train", "heldout"]
[publish]
use = "directory"
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A directory with the example plugin installed by pip."""
    target = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--target",
        str(target),
        str(ROOT / "tests" / "example_plugin"),
    ]
    subprocess.run(command, check=True)
    return target


class Shell:
    """Runs `swebench-train` in a directory, with a cache of models that all shells share."""

    def __init__(self, folder, site, server):
        self.folder = folder
        self.hub = server.hub
        self._server = server
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(site), os.environ.get("PYTHONPATH")])
            ),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "200",
            # Its own: no run may find what another one has done.
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def start(self, *arguments):
        command = ["swebench_trainer", *arguments]
        return self._server.start(command, self.folder, self.env)

    def run(self, *arguments, code=0):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"{process.returncode}\n{out}\n{err}"
        assert "Traceback" not in out + err
        return out + err

    def run_killed(self, *arguments, moments):
        """Kills the run again and again, until it ends; returns how many times.

        The moments go by what the run has done, not by the clock: how many of them
        there are is not a matter of the machine's speed.
        """
        log = self.folder / "runs/small/events.jsonl"

        def events():
            return log.read_bytes().count(b"\n") if log.exists() else 0

        kills = 0
        while True:
            enough = events() + moments.randint(1, 60)
            process = self.start(*arguments)
            while process.poll() is None and events() < enough:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.1))
            process.kill()
            out, err = process.communicate()
            if process.returncode != -signal.SIGKILL:
                assert process.returncode == 0, f"{process.returncode}\n{out}\n{err}"
                return kills
            kills += 1

    def write(self, text, name="recipe.toml"):
        path = self.folder / name
        path.write_text(text)
        return name

    def stage(self, name, run="small"):
        return self.folder / "runs" / run / "stages" / name

    def rows(self, stage, file, run="small"):
        text = (self.stage(stage, run) / file).read_text()
        return [json.loads(line) for line in text.splitlines()]

    def json(self, stage, file, run="small"):
        return json.loads((self.stage(stage, run) / file).read_text())

    def results(self, run="small"):
        """Every result file of a run by name, without what may differ between runs."""
        stages = self.folder / "runs" / run / "stages"
        return {
            str(path.relative_to(stages)): path.read_bytes().replace(
                str(self.folder).encode(), b"HERE"
            )
            for path in sorted(stages.rglob("*"))
            if path.is_file()
            and "logs" not in path.parts
            and path.name != "timings.jsonl"
        }


@pytest.fixture
def shell(tmp_path, new_shell):
    return new_shell(tmp_path)


@pytest.fixture(scope="session")
def new_shell(tmp_path_factory, site, warm_server):
    """Makes a shell in a directory, or in a new one."""

    def make(folder=None):
        return Shell(folder or tmp_path_factory.mktemp("shell"), site, warm_server)

    return make


@pytest.fixture
def recipe():
    return RECIPE
