"""A new plugin is installed, passes its tests, and is used, as it was written."""

import os
import subprocess
import sys

import pytest

from swebench_trainer.cli import run_command_line
from swebench_trainer.scaffold.write import compatible, kinds

NAME = "my-first-one"


@pytest.mark.parametrize("kind", kinds())
def test_its_tests_pass_at_once_and_a_run_can_name_it(kind, tmp_path, capsys):
    code = run_command_line(["new-plugin", NAME, "--kind", kind, "--to", str(tmp_path)])
    folder = tmp_path / "swebench-trainer-my-first-one"
    assert code == 0 and f"pip install -e {folder}" in capsys.readouterr().out
    site = tmp_path / "site"
    run(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--disable-pip-version-check", "--target", site, folder),
    )
    # Outside the checkout: no configuration of ours helps it.
    out = run(
        "-m", "pytest", "-q", "-p", "no:xdist", "-W", "error", cwd=folder, site=site
    )
    assert " passed" in out and "failed" not in out
    listed = run("-m", "swebench_trainer", "plugins", cwd=tmp_path, site=site)
    assert f"{NAME} " in listed and "swebench-trainer-my-first-one 0.1.0" in listed


def run(*arguments, cwd=None, site=""):
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["My-Model", "a_b", "-a", "a--b", "1a", "../a", ""])
def test_names_that_are_none_are_refused(name, tmp_path, capsys):
    command = ["new-plugin", "--kind", "backend", "--to", str(tmp_path), "--", name]
    assert run_command_line(command) == 2
    assert "is no name for a plugin" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_kinds_that_there_are_not_and_directories_that_there_are(tmp_path, capsys):
    command = ["new-plugin", "a", "--to", str(tmp_path), "--kind"]
    assert run_command_line([*command, "car"]) == 2
    assert "There are: backend, pair-strategy" in capsys.readouterr().err
    assert run_command_line([*command, "backend"]) == 0
    assert run_command_line([*command, "backend"]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


def test_a_plugin_is_for_versions_that_promise_to_be_compatible():
    assert compatible("0.1.0") == ">=0.1,<0.2"
    assert compatible("0.12.3") == ">=0.12,<0.13"
    assert compatible("1.4.2") == ">=1.4,<2"
