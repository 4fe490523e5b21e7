from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, strategies as st
from tiny import CALC, GOLD, MALFORMED, NEW_FILE, NO_NEWLINE, WRONG, diff

from swebench_trainer.grading.apply import (
    REFUSED,
    applied_tree,
    apply_script,
    is_contained,
    named_paths,
    patch_bytes,
)
from swebench_trainer.patches.hostile_diff import patched_paths
from swebench_trainer.testing import an_instance

INSTANCE = an_instance()
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
FUZZY = (
    "--- a/calc.py\n+++ b/calc.py\n@@ -4,3 +4,3 @@\n \n-def double(a):\n"
    "+def twice(a):\n     return 3 * a\n"
)


@dataclass
class Applied:
    code: int
    output: str
    repository: Path

    @property
    def tree(self) -> str:
        return applied_tree(self.output)

    def git(self, *arguments: str) -> str:
        command = [*GIT, *arguments]
        done = subprocess.run(
            command, cwd=self.repository, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()


def apply(
    folder: Path,
    patch: str | bytes,
    instance=INSTANCE,
    untracked: Mapping[str, str] = MappingProxyType({}),
    **files: str,
) -> Applied:
    """Run the script in a repository with `calc.py`, with the patch outside it."""
    applied = Applied(-1, "", folder / "repository")
    applied.repository.mkdir(parents=True)
    for name, text in {"calc.py": CALC, **files}.items():
        (applied.repository / name).write_text(text)
    applied.git("init", "-q")
    applied.git("add", ".")
    applied.git("commit", "-q", "-m", "base")
    for name, text in untracked.items():
        (applied.repository / name).write_text(text)
        (applied.repository / ".git/info/exclude").write_text(name)
    if instance.apply_mode == "pro":
        head = applied.git("rev-parse", "HEAD")
        instance = dataclasses.replace(instance, base_commit=head)
    content = patch.encode() if isinstance(patch, str) else patch
    (folder / "patch.diff").write_bytes(content)
    paths = patched_paths(content.decode(errors="surrogateescape"))
    (folder / "named_paths").write_bytes(named_paths(paths))
    script = apply_script(instance)
    for name in ("patch.diff", "named_paths"):
        script = script.replace(f"/tmp/{name}", str(folder / name))
    (folder / "apply.sh").write_text(script)
    done = subprocess.run(
        ["sh", folder / "apply.sh"],
        cwd=applied.repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert not (folder / "apply.sh").exists()
    return dataclasses.replace(applied, code=done.returncode, output=done.stdout)


def test_script_uses_the_harness_commands_in_order() -> None:
    from swebench.harness.run_evaluation import GIT_APPLY_CMDS

    script = apply_script(INSTANCE)
    places = [script.index(f"{command} /tmp/patch.diff") for command in GIT_APPLY_CMDS]
    assert places == sorted(places)
    assert script.count("git checkout -- . ; git clean -fd") == len(GIT_APPLY_CMDS) - 1


@pytest.mark.parametrize(
    ("patch", "command"),
    [
        (GOLD, "git apply --verbose"),
        (NEW_FILE, "git apply --verbose"),
        # A wrong context line: only patch(1) with its fuzz accepts it.
        (FUZZY, "patch --batch --forward --fuzz=5 -p1 -i"),
    ],
)
def test_the_first_command_that_accepts_the_patch_is_reported(
    tmp_path: Path, patch: str, command: str
) -> None:
    done = apply(tmp_path, patch)
    assert done.code == 0, done.output
    assert done.output.splitlines()[-2] == f">>>>> Applied Patch: {command}"
    assert (done.repository / "calc.py").read_text() != CALC


@pytest.mark.parametrize("patch", [MALFORMED, NO_NEWLINE])
def test_a_refused_patch_leaves_no_partial_changes(tmp_path: Path, patch: str) -> None:
    done = apply(tmp_path, patch)
    assert done.code == REFUSED
    assert ">>>>> Patch Apply Failed" in done.output
    assert (done.repository / "calc.py").read_text() == CALC
    assert done.tree == ""


def test_patches_that_produce_the_same_files_have_the_same_tree_id(
    tmp_path: Path,
) -> None:
    first = apply(tmp_path / "1", GOLD)
    second = apply(tmp_path / "2", f"Here is my fix:\n{GOLD}")
    assert first.tree and first.tree == second.tree
    assert first.git("status", "--porcelain") == "M calc.py"
    loose = first.git("count-objects")
    assert loose.startswith("3 objects"), "the tree's objects are not the repository's"


@pytest.mark.parametrize(
    "patch",
    [
        WRONG,
        NEW_FILE,
        GOLD.replace("\n---", "\nold mode 100644\nnew mode 100755\n---"),
        FUZZY,
    ],
)
def test_different_files_have_a_different_tree_id(tmp_path: Path, patch: str) -> None:
    gold = apply(tmp_path / "gold", GOLD).tree
    assert apply(tmp_path / "other", patch).tree not in ("", gold)


def test_backup_files_of_patch_change_the_tree_id(tmp_path: Path) -> None:
    fuzzy = apply(tmp_path / "fuzzy", FUZZY)
    assert fuzzy.git("status", "--porcelain") == "M calc.py\n?? calc.py.orig"
    exact = diff("calc.py", CALC, CALC.replace("double", "twice"))
    assert fuzzy.tree not in ("", apply(tmp_path / "exact", exact).tree)


def test_there_is_no_tree_id_if_git_ignores_a_file(tmp_path: Path) -> None:
    hidden = GOLD + diff("build/x.py", None, "1\n")
    assert apply(tmp_path / "seen", hidden).tree
    ignoring = apply(tmp_path / "hidden", hidden, **{".gitignore": "build/\n"})
    assert (ignoring.code, ignoring.tree) == (0, "")


def test_there_is_no_tree_id_if_an_ignored_file_is_deleted(tmp_path: Path) -> None:
    """A generated file that only the image has; git would not notice its deletion."""
    deleting = "diff --git a/gen.py b/gen.py\ndeleted file mode 100644\n--- a/gen.py\n"
    deleting += "+++ /dev/null\n@@ -1 +0,0 @@\n-VALUE = 1\n"
    kept = apply(tmp_path / "kept", GOLD, untracked={"gen.py": "VALUE = 1\n"})
    gone = apply(
        tmp_path / "gone", GOLD + deleting, untracked={"gen.py": "VALUE = 1\n"}
    )
    assert (kept.code, bool(kept.tree)) == (0, True)
    assert not (gone.repository / "gen.py").exists()
    assert (gone.code, gone.tree) == (0, "")


def test_line_endings_that_git_normalizes_change_the_tree_id(tmp_path: Path) -> None:
    script = "#!/bin/sh\nexit 0\n"
    attributes = {".gitattributes": "* text=auto\n"}
    trees = {
        apply(tmp_path / name, GOLD + diff("run.sh", None, text), **attributes).tree
        for name, text in {"lf": script, "crlf": script.replace("\n", "\r\n")}.items()
    }
    assert len(trees) == 2 and "" not in trees


def test_there_is_no_tree_id_without_named_paths(tmp_path: Path) -> None:
    done = apply(tmp_path, GOLD)
    script = apply_script(INSTANCE).replace("/tmp/", f"{tmp_path}/missing/")
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "patch.diff").write_text(WRONG)
    done.git("checkout", "-q", "--", ".")
    again = subprocess.run(
        ["sh", "-c", script], cwd=done.repository, capture_output=True, text=True
    )
    assert (again.returncode, applied_tree(again.stdout)) == (0, "")


def test_output_of_a_patch_is_not_a_tree_id() -> None:
    forged = f"tree {'0' * 40} {'0' * 40} {'0' * 40}\n"
    assert applied_tree(forged)
    assert applied_tree(f"{forged}>>>>> Applied Patch: git apply\n") == ""


@pytest.mark.parametrize(
    ("path", "contained"),
    [
        ("a/b.py", True),
        ("..a", True),
        ("../a", False),
        ("a/../../b", False),
        ("/etc/passwd", False),
        (".git/hooks/post-checkout", False),
        ("module/.git/config", False),
        (".gitignore", True),
        ("", False),
    ],
)
def test_paths_outside_the_repository_are_recognized(
    path: str, contained: bool
) -> None:
    assert is_contained(path) is contained


def test_pro_applies_once_and_resets_before(tmp_path: Path) -> None:
    pro = an_instance(apply_mode="pro")
    done = apply(tmp_path / "gold", GOLD, pro)
    assert (done.code, bool(done.tree)) == (0, True)
    assert "HEAD is now at" in done.output
    assert apply(tmp_path / "fuzzy", FUZZY, pro).code == REFUSED


@given(st.text())
def test_patch_bytes_equal_the_harness_where_it_works(text: str) -> None:
    try:
        expected = text.encode()
    except UnicodeEncodeError:
        return
    assert patch_bytes(text) == expected


def test_surrogates_become_bytes_or_are_rejected() -> None:
    assert patch_bytes(b"caf\xe9".decode("utf-8", "surrogateescape")) == b"caf\xe9"
    assert patch_bytes("\ud800") is None
