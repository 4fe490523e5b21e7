from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import CALC, GOLD, MALFORMED, NEW_FILE, NO_NEWLINE

from swebench_trainer.grading.apply import REFUSED, apply_script, patch_bytes


def apply(folder: Path, patch: bytes) -> subprocess.CompletedProcess[str]:
    """Runs the script in a repository with `calc.py`; the patch lies beside it."""
    repository = folder / "repository"
    repository.mkdir()
    (repository / "calc.py").write_text(CALC)
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "base"]):
        who = [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "-c",
            "commit.gpgsign=false",
        ]
        subprocess.run(["git", *who, *command], cwd=repository, check=True)
    (folder / "patch.diff").write_bytes(patch)
    script = apply_script().replace("/tmp/patch.diff", str(folder / "patch.diff"))
    return subprocess.run(
        ["sh", "-c", script],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_script_uses_the_harness_commands_in_order() -> None:
    from swebench.harness.run_evaluation import GIT_APPLY_CMDS

    script = apply_script()
    places = [script.index(f"{command} /tmp/patch.diff") for command in GIT_APPLY_CMDS]
    assert places == sorted(places)
    assert script.count("git checkout -- . ; git clean -fd") == len(GIT_APPLY_CMDS) - 1


@pytest.mark.parametrize(
    ("patch", "command"),
    [
        (GOLD, "git apply --verbose"),
        (NEW_FILE, "git apply --verbose"),
        # A wrong context line: only patch(1) with its fuzz accepts it.
        (
            "--- a/calc.py\n+++ b/calc.py\n@@ -4,3 +4,3 @@\n \n-def double(a):\n"
            "+def twice(a):\n     return 3 * a\n",
            "patch --batch --forward --fuzz=5 -p1 -i",
        ),
    ],
)
def test_applied(tmp_path: Path, patch: str, command: str) -> None:
    done = apply(tmp_path, patch.encode())
    assert done.returncode == 0, done.stdout
    assert done.stdout.rstrip().endswith(f">>>>> Applied Patch: {command}")
    assert (tmp_path / "repository" / "calc.py").read_text() != CALC


@pytest.mark.parametrize("patch", [MALFORMED, NO_NEWLINE])
def test_refused_leaves_no_half_of_the_patch(tmp_path: Path, patch: str) -> None:
    done = apply(tmp_path, patch.encode())
    assert done.returncode == REFUSED
    assert ">>>>> Patch Apply Failed" in done.stdout
    assert (tmp_path / "repository" / "calc.py").read_text() == CALC


@given(st.text())
def test_patch_bytes_equal_the_harness_where_it_works(text: str) -> None:
    try:
        expected = text.encode()
    except UnicodeEncodeError:
        return
    assert patch_bytes(text) == expected


def test_patch_bytes_of_odd_text() -> None:
    assert patch_bytes(b"caf\xe9".decode("utf-8", "surrogateescape")) == b"caf\xe9"
    assert patch_bytes("\ud800") is None
