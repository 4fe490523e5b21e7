"""Which files a diff names, against git and patch(1) themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from swebench_trainer.patches.hostile_diff import (
    absolute_names,
    existing_paths,
    file_modes,
    patched_paths,
)

SURPRISES = [
    "\t",
    "\n",
    "\r",
    " ",
    '"',
    "\\",
    " b/",
    "a/",
    "\x7f",
    "\udcff",
    "ä",
    "--- ",
]
components = (
    st.lists(st.one_of(st.sampled_from(SURPRISES), st.text("xyz.", max_size=2)))
    .map(lambda parts: "".join(parts).replace("/", "%")[:40])
    .filter(lambda name: name not in ("", ".", ".."))
)
names = st.lists(components, min_size=1, max_size=3).map("/".join)
trees = st.dictionaries(names, st.sampled_from(["one\n", "two\n"]), max_size=3)


def git(folder: Path, *arguments: str) -> bytes:
    options = ["-c", "core.autocrlf=false", "-c", "init.defaultBranch=main"]
    environment = dict(
        os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1"
    )
    return subprocess.run(
        ["git", *options, *arguments],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    ).stdout


def write(folder: Path, files: dict[str, str]) -> None:
    for entry in folder.iterdir():
        if entry.name != ".git":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for number, (name, content) in enumerate(sorted(files.items())):
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            path.chmod(0o755 if number else 0o644)
        except OSError:  # one name is the folder of another
            continue


@settings(max_examples=25, deadline=None)
@given(trees, trees, st.sampled_from(["true", "false"]))
def test_every_file_of_a_diff_by_git_is_found(
    before: dict[str, str], after: dict[str, str], quote: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        git(folder, "init", "-q")
        write(folder, before)
        git(folder, "add", "--all", "--force")
        write(folder, after)
        git(folder, "add", "--all", "--force", "--intent-to-add")
        options = ["-c", f"core.quotePath={quote}", "diff", "-M"]
        patch = os.fsdecode(git(folder, *options))
        listed = git(folder, "diff", "-M", "--name-only", "-z")
        status = git(folder, "diff", "--no-renames", "--name-status", "-z")
    changed = {os.fsdecode(path) for path in listed.split(b"\0") if path}
    assert changed <= set(patched_paths(patch))
    fields = os.fsdecode(status).split("\0")
    older = {
        path
        for kind, path in zip(fields[::2], fields[1::2], strict=False)
        if kind != "A"
    }
    assert older <= existing_paths(patch)


@pytest.mark.parametrize(
    ("header", "path"),
    [
        ("--- x/calc.py\t2000-01-01 00:00:00 +0000", "calc.py"),
        ("--- a/my calc.py\t", "my calc.py"),
        ("+++ b/my calc.py 2000-01-01 00:00:00.5 +0000", "my calc.py"),
        ("+++ b/calc.py Sat Jan 1", "calc.py"),
        ("+++ b//calc.py", "calc.py"),
        ("+++ b/./lib/.//calc.py\r", "lib/calc.py"),
        ("+++ a/../../calc.py", "../../calc.py"),
        ('+++ "b/\\303\\244\\t\\"\\\\.py"', 'ä\t"\\.py'),
        ('+++ "b/\\377"', "\udcff"),
        ("rename to lib/calc.py", "lib/calc.py"),
        ('copy from "lib/\\303\\244"', "lib/ä"),
        ("diff --git a/calc.py b/calc.py", "calc.py"),
        ("diff --git a/one b/two", "one"),
        ("diff --git a/one b/two", "two"),
        ("diff --git a/x b/y b/x b/y", "x b/y"),
        ('diff --git a/one "b/\\303\\244 b"', "ä b"),
        ('diff --git "a/\\303\\244 b" b/two', "ä b"),
        ('diff --git "a/\\303\\244 b" b/two', "two"),
        ("   +++ b/calc.py", "calc.py"),
        ("X*** a/calc.py", "calc.py"),
        ("Index:a/calc.py", "calc.py"),
    ],
)
def test_names_are_read_as_git_and_patch_read_them(header: str, path: str) -> None:
    assert path in set(patched_paths(f"mail\n{header}\n@@ -1 +1 @@\n"))


@pytest.mark.parametrize("indent", ["", "   ", "\t", "X"])
def test_patch_accepts_an_indented_diff(tmp_path: Path, indent: str) -> None:
    """The harness's last apply command is patch(1), so the reader accepts it too."""
    (tmp_path / "calc.py").write_text("one\n")
    lines = ["--- a/calc.py", "+++ b/calc.py", "@@ -1 +1 @@", "-one", "+two", ""]
    patch = "\n".join(f"{indent}{line}" if line else line for line in lines)
    command = ["patch", "--batch", "--forward", "--fuzz=5", "-p1"]
    done = subprocess.run(
        command, cwd=tmp_path, input=patch, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "calc.py").read_text() == "two\n"
    assert set(patched_paths(patch)) == {"calc.py"}


def test_text_that_is_not_a_header_names_no_file() -> None:
    patch = (
        "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+--- a/text\n+diff --git a/x b/x\n"
    )
    assert set(patched_paths(patch)) == {"new.py"}
    assert absolute_names(patch) == set()
    assert existing_paths(patch) == set()


@pytest.mark.parametrize(
    "patch",
    [
        "diff --git a/t.py b/t.py\nold mode 100644\nnew mode 100755\n",
        "diff --git a/t.py b/t.py\ndeleted file mode 100644\n--- a/t.py\n+++ /dev/null\n",
        "diff --git a/t.py b/u.py\nrename from t.py\nrename to u.py\n",
        "--- /dev/null\n+++ b/t.py\n@@ -1,2 +1,2 @@\n-a\n+b\n",
        "diff --git a/t.py b/t.py\nnew file mode 100644\n--- a/t.py\n+++ b/t.py\n",
        "diff --git a/t.py b/t.py\nindex 1..2\nGIT binary patch\n",
        "*** a/t.py\n--- b/t.py\n",
    ],
)
def test_files_that_may_exist_are_recognized(patch: str) -> None:
    added = "diff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+x\n"
    assert "t.py" in existing_paths(patch + added)
    assert "new.py" not in existing_paths(added)


def test_file_modes_are_found_in_every_header() -> None:
    patch = (
        "new file mode 120000\nold mode 100644\nindex 12..34 160000\r\n+new mode 1\n"
    )
    assert file_modes(patch) == {0o120000, 0o100644, 0o160000}


def test_absolute_names_are_found() -> None:
    patch = "--- /dev/null\n+++ /etc/passwd\nrename to /eval.sh\n"
    assert absolute_names(patch) == {"/etc/passwd", "/eval.sh"}


@pytest.mark.parametrize(
    "line",
    [
        "diff --git a" + "/ " * 300_000,
        "diff --git a/" + " a/a" * 3_000,
        'diff --git "' + '"\\' * 300_000,
        "--- a/" + " " * 600_000,
        "--- a/" + " 1-1" * 150_000,
        "+++ " + '"' * 600_000,
        " " * 600_000,
    ],
)
def test_every_header_is_parsed_quickly(line: str) -> None:
    begin = time.monotonic()
    list(patched_paths(f"{line}\n" * 2))
    existing_paths(f"{line}\n" * 2)
    assert time.monotonic() - begin < 2
