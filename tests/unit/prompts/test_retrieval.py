"""Retrieval of files by the terms of an issue."""

from __future__ import annotations

import os

import pytest
from damage import Memory

from swebench_trainer.prompts.retrieval import Recall, Searcher
from swebench_trainer.prompts.source_files import is_source, is_test
from swebench_trainer.prompts.terms import terms
from swebench_trainer.store.cache import PruneLimits, prune

TREE = {
    "pkg/url.py": b"def get_url():\n    return HTTPServer.address\n",
    "pkg/b.py": b"alpha beta\n",
    "pkg/a.py": b"alpha beta\n",
    "pkg/big.py": b"alpha " * 400_000,
    "pkg/latin.py": b"# \xe9t\xe9 gamma\n",
    "notes.md": b"alpha\n",
}


class Store(Memory):
    """A tree with git object ids that records its reads."""

    def __init__(self, files) -> None:
        super().__init__(files)
        self.reads: list[str] = []

    def blob(self, path: str) -> str:
        return str(hash(self._files[path]))

    def read(self, path: str) -> bytes | None:
        self.reads.append(path)
        return super().read(path)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "swebench-trainer/bm25"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTPServer.get_url2", "httpserver http server get_url2 get url"),
        ("x = camelCase", "camelcase camel case"),
        ("_private __init__", "private init"),
        ("été 3.14 404", "été 14 404"),
        ("", ""),
    ],
)
def test_terms_are_names_and_their_parts(text, expected) -> None:
    assert list(terms(text)) == expected.split()


@pytest.mark.parametrize(
    "path",
    [
        "a.py",
        "django/test/client.py",
        "src/_pytest/python.py",
        "sphinx/testing/x.py",
        "src/A.JAVA",
        "lib/contest.js",
        "latest.go",
    ],
)
def test_source_files_are_recognized(path) -> None:
    assert is_source(path)


@pytest.mark.parametrize(
    "path",
    [
        "tests/a.py",
        "xarray/tests/a.py",
        "test/a.py",
        "testing/python/x.py",
        "test_requests.py",
        "a/conftest.py",
        "src/a.test.ts",
        "pkg/a_test.go",
        "tests/unittest_brain.py",
        "spec/a.rb",
        "app/tests.py",
    ],
)
def test_test_files_are_recognized(path) -> None:
    assert is_test(path) and not is_source(path)


def test_other_files_are_not_source_files() -> None:
    assert not any(map(is_source, ["README.md", "setup.cfg", "data.json", "Makefile"]))


def test_files_are_ranked_by_shared_terms_and_ties_by_path() -> None:
    searcher, tree = Searcher(), Memory(TREE)
    assert searcher.rank(tree, "The URL of the HTTP server is wrong")[0] == "pkg/url.py"
    assert searcher.rank(tree, "beta") == ["pkg/a.py", "pkg/b.py"]
    assert searcher.rank(tree, "gamma") == ["pkg/latin.py"]
    assert searcher.rank(tree, "nothing of this") == []
    assert searcher.rank(tree, "") == []
    assert searcher.rank(Memory({}), "alpha") == []


def test_an_index_is_built_once_and_shared(folder) -> None:
    tree = Store(TREE)
    first = Searcher().rank(tree, "alpha")
    assert sorted(tree.reads) == sorted(p for p in TREE if p.endswith(".py"))
    assert len(list(folder.glob("*.zip"))) == 1
    tree.reads.clear()
    assert Searcher().rank(tree, "alpha") == first
    assert tree.reads == []


def test_searching_counts_as_use_of_the_index(folder) -> None:
    Searcher().rank(Memory(TREE), "alpha")
    (lock,) = folder.glob("*.lock")
    os.utime(lock, (0, 0))
    Searcher().rank(Memory(TREE), "beta")
    assert prune(folder, PruneLimits(unused_for=3600)) == 0
    assert prune(folder, PruneLimits(unused_for=-1)) == 1
    assert not any(folder.iterdir())


def test_object_ids_equal_gits(folder) -> None:
    class Git(Memory):
        def blob(self, path: str) -> str:
            return "78981922613b2afb6025042ff6bd878ac1994e85"  # of b"a\n"

    Searcher().rank(Git({"x.py": b"a\n"}), "x")
    Searcher().rank(Memory({"x.py": b"a\n"}), "x")
    assert len(list(folder.glob("*.zip"))) == 1


def test_a_file_shared_by_commits_is_read_once() -> None:
    searcher = Searcher()
    one, two = Store(TREE), Store(TREE | {"pkg/a.py": b"alpha delta\n"})
    searcher.rank(one, "alpha")
    assert searcher.rank(two, "delta") == ["pkg/a.py"]
    assert two.reads == ["pkg/a.py"]
    assert searcher.rank(two, "beta") == ["pkg/b.py"]


def test_memory_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr("swebench_trainer.prompts.retrieval._KEPT", 5)
    searcher = Searcher()
    for number in range(5):
        tree = Memory({f"m{number}.py": b"one two three four five\n"})
        assert searcher.rank(tree, "three") == [f"m{number}.py"]
        assert len(searcher._documents) == 1


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "flipped"])
def test_a_damaged_index_is_rebuilt(folder, damage) -> None:
    tree = Memory(TREE)
    expected = Searcher().rank(tree, "alpha beta")
    (file,) = folder.glob("*.zip")
    content = file.read_bytes()
    changed = {
        "cut": content[: len(content) // 2],
        "other": b"not a zip",
        "empty": b"",
        "flipped": content[:80] + bytes([content[80] ^ 255]) + content[81:],
    }[damage]
    file.write_bytes(changed)
    assert Searcher().rank(tree, "alpha beta") == expected
    assert file.read_bytes() != changed


def test_an_unwritable_cache_is_ignored(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert Searcher().rank(Memory(TREE), "gamma") == ["pkg/latin.py"]


def test_recall_counts_only_existing_files() -> None:
    def patch(*paths: str) -> str:
        return "".join(f"--- a/{p}\n+++ b/{p}\n@@ -1 +1 @@\n-a\n+b\n" for p in paths)

    recall = Recall()
    recall.add(patch("a", "b"), ["a", "x", "b"])
    recall.add(patch("c"), ["c"])
    recall.add("--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+a\n", ["new"])
    recall.add("no patch", [])
    assert recall.instances == 2
    assert recall.percent() == ([50.0, 100.0, 100.0], [75.0, 100.0, 100.0])
    assert Recall().percent()[0] == [0.0, 0.0, 0.0]
