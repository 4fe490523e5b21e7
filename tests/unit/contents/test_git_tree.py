"""A commit's files as git has them, whatever their names and contents."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from origins import commit_index, commit_tree, git

from swebench_trainer.contents import objects as objects_module
from swebench_trainer.contents.directory import Directory
from swebench_trainer.contents.objects import Objects
from swebench_trainer.contents.repositories import GitTree

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",)),
    min_size=1,
    max_size=8,
).filter(
    lambda name: name not in (".", "..") and name.lower()[:4] not in (".git", "git~")
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.binary(max_size=60) | st.sampled_from([b"", b"a\r\nb\r\n", b"\0", b"a"])
FILES = st.dictionaries(PATHS, st.tuples(CONTENTS, st.booleans()), max_size=6)


def can_be(files: dict[str, tuple[bytes, bool]]) -> bool:
    """Whether no file path is also a directory of another."""
    return not any(f"{a}/" == b[: len(a) + 1] for a in files for b in files)


@settings(max_examples=40, deadline=None)
@given(FILES.filter(can_be))
def test_the_tree_equals_a_checkout(files: dict[str, tuple[bytes, bool]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        work, out = Path(scratch, "work"), Path(scratch, "out")
        work.mkdir()
        git(work, "init", "-q")
        git(work, "config", "core.protectHFS", "false")  # some names have no width
        for path, (content, executable) in files.items():
            place = work / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o755 if executable else 0o644)
        git(work, "add", "-A", "-f")
        git(work, "commit", "-q", "--allow-empty", "-m", "it")
        git(work, "worktree", "add", "-q", "--detach", str(out))
        checkout = Directory(out)
        objects = Objects(work / ".git")
        tree = GitTree(objects, git(work, "rev-parse", "HEAD"))
        try:
            readable = [path for path in checkout.paths() if is_safe(checkout, path)]
            assert list(tree.paths()) == readable
            for path in readable:
                assert tree.read(path) == checkout.read(path) == files[path][0]
                assert tree.mode(path) == checkout.mode(path)
                assert tree.mode(path) == ("100755" if files[path][1] else "100644")
        finally:
            objects.close()


def is_safe(tree: Directory, path: str) -> bool:
    try:
        tree.mode(path)
    except ValueError:
        return False
    return True


@pytest.fixture
def tree(origin: Path):
    opened = []

    def make(entries) -> GitTree:
        objects = Objects(origin)
        opened.append(objects)
        return GitTree(objects, commit_index(origin, entries))

    yield make
    for objects in opened:
        objects.close()


def test_links_submodules_and_directories_are_not_files(tree) -> None:
    found = tree(
        {
            b"src/a.py": ("100644", b"a\n"),
            b"src/run": ("100755", b"#!\n"),
            b"link": ("120000", b"src/a.py"),
            b"out": ("120000", b"../../etc/passwd"),
            b"sub": ("160000", "1" * 40),
        }
    )
    assert found.paths() == ("src/a.py", "src/run")
    kinds = ("src", "src/a.py", "src/run", "link", "out", "sub", "gone", "src/gone")
    modes = ["040000", "100644", "100755", "120000", "120000", "160000", "", ""]
    assert [found.mode(path) for path in kinds] == modes
    for path in ("src", "link", "out", "sub", "gone"):
        assert found.read(path) is None
        assert found.blob(path) == ""


@pytest.mark.parametrize(
    "path",
    [
        "../a",
        "/etc/passwd",
        "a/../b",
        ".git/config",
        "a//b",
        "",
        "a\nb",
        chr(0xDCFF),
        "link/a.py",
        "src/a.py/b",
        "sub/a",
    ],  # through what is no directory
)
def test_unsafe_paths_are_refused_as_on_disk(tree, path, tmp_path) -> None:
    found = tree(
        {
            b"src/a.py": ("100644", b"a\n"),
            b"link": ("120000", b"src"),
            b"sub": ("160000", "1" * 40),
        }
    )
    for ask in (found.read, found.mode, found.blob):
        with pytest.raises(ValueError):
            ask(path)
    if path.startswith("sub"):  # git makes an empty directory of it
        return
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("a\n")
    (tmp_path / "link").symlink_to("src")
    with pytest.raises(ValueError):
        Directory(tmp_path).read(path)


def test_files_with_unsafe_or_non_utf8_names_are_left_out(tree, origin) -> None:
    good = {"é.py": b"1", 'q"\\ .py': b"2", "-rf": b"3", "日本/x": b"4"}
    bad = [b"\xff.py", b"new\nline", b"tab\t"]
    entries = {name.encode(): ("100644", text) for name, text in good.items()}
    found = tree(entries | {name: ("100644", b"bad") for name in bad})
    assert list(found.paths()) == sorted(good)
    assert {path: found.read(path) for path in found.paths()} == good


def test_hostile_trees_have_no_paths_outside_the_repository(origin) -> None:
    blob = git(origin, "hash-object", "-w", "--stdin", text="x")
    raw = bytes.fromhex(blob)
    entries = [b"..", b".", b".git", b"/etc", b"ok"]
    body = b"".join(b"100644 " + name + b"\0" + raw for name in sorted(entries))
    made = git(
        *(origin, "hash-object", "-w", "-t", "tree", "--literally", "--stdin"),
        text=body,
    )
    objects = Objects(origin)
    assert GitTree(objects, commit_tree(origin, made)).paths() == ("ok",)
    objects.close()


def test_equal_files_have_equal_ids(tree) -> None:
    found = tree(
        {b"a": ("100644", b"x"), b"b": ("100755", b"x"), b"c": ("100644", b"y")}
    )
    assert found.blob("a") == found.blob("b") != found.blob("c")


def test_files_above_the_size_limit_are_refused(tree, monkeypatch) -> None:
    large = os.urandom(1 << 20) * 9
    found = tree({b"large": ("100644", large), b"small": ("100644", b"s")})
    assert found.read("large") == large
    monkeypatch.setattr(objects_module, "MAX_FILE", 9 << 20)
    assert found.read("large") == large
    monkeypatch.setattr(objects_module, "MAX_FILE", (9 << 20) - 1)
    with pytest.raises(ValueError, match="has 9 MB"):
        found.read("large")
    # The rest of the large file is skipped.
    assert found.read("small") == b"s"


def test_a_tree_that_expands_without_end_is_refused(origin) -> None:
    made = git(origin, "mktree", text="")
    blob = git(origin, "hash-object", "-w", "--stdin", text="x")
    made = git(origin, "mktree", text=f"100644 blob {blob}\tf\n")
    for _ in range(12):
        lines = (f"040000 tree {made}\t{'d' * 90}{n}\n" for n in range(10))
        made = git(origin, "mktree", text="".join(lines))
    objects = Objects(origin)
    with pytest.raises(ValueError, match="too many files"):
        GitTree(objects, made).paths()
    objects.close()


def test_a_dead_reader_process_is_restarted(tree) -> None:
    found = tree({b"a": ("100644", b"x")})
    assert found.read("a") == b"x"
    found._objects._process.kill()
    found._objects._process.wait()
    assert found.read("a") == b"x"


def test_closing_ends_the_reader_process(tree) -> None:
    found = tree({b"a": ("100644", b"x")})
    found.read("a")
    process = found._objects._process
    found._objects.close()
    assert process.poll() is not None
    assert found.read("a") == b"x"  # and whoever still has the tree can read it


def test_a_damaged_object_raises_with_its_id(tree, origin) -> None:
    found = tree({b"a": ("100644", b"x"), b"b": ("100644", b"y")})
    blob = found.blob("a")
    loose = origin / "objects" / blob[:2] / blob[2:]
    loose.chmod(0o644)
    loose.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged"):
        found.read("a")
    assert found.read("b") == b"y"


def test_missing_objects_are_never_fetched(origin, tmp_path) -> None:
    """Reading a partial clone of the user must not write to it."""
    commit = commit_index(origin, {b"a": ("100644", b"x" * 100)})
    git(origin, "config", "uploadpack.allowFilter", "true")
    partial = tmp_path / "partial"
    subprocess.run(
        [
            "git",
            "clone",
            "-q",
            "--bare",
            "--filter=blob:none",
            f"file://{origin}",
            str(partial),
        ],
        check=True,
    )
    before = sorted(path for path in partial.rglob("*"))
    objects = Objects(partial)
    with pytest.raises(ValueError, match="damaged"):
        GitTree(objects, commit).read("a")
    objects.close()
    assert sorted(path for path in partial.rglob("*")) == before


def test_replacement_objects_are_ignored(tree, origin) -> None:
    found = tree({b"a": ("100644", b"x")})
    other = git(origin, "hash-object", "-w", "--stdin", text="y")
    git(origin, "replace", found.blob("a"), other)
    assert found.read("a") == b"x"


def test_the_environment_of_a_hook_is_ignored(tree, monkeypatch, tmp_path) -> None:
    found = tree({b"a": ("100644", b"x")})
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path))
    assert found.read("a") == b"x"


def test_a_missing_git_raises(tree, monkeypatch, tmp_path) -> None:
    from swebench_trainer.errors import PrerequisiteError

    found = tree({b"a": ("100644", b"x")})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    with pytest.raises(PrerequisiteError, match="git is not installed"):
        found.read("a")
