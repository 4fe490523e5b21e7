"""Trees on disk, and what git makes of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from swebench_trainer.types import Instance

Tree = dict[str, bytes]


class Workshop:
    """Makes instances from trees, and trees from patches, with git only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def write(self, tree: Mapping[str, bytes]) -> Path:
        self._count += 1
        root = self._folder / str(self._count)
        root.mkdir()
        for path, content in tree.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        return root

    def instance(self, old: Tree, new: Tree, **fields: str) -> Instance:
        """An instance whose gold patch leads from `old` to `new`."""
        before, after = self.write(old), self.write(new)
        store = ("-c", "core.bare=false", f"--git-dir={self.write({}) / 'git'}")
        _git(before, *store, "init", "--quiet")
        hashes = []
        for root in (before, after):
            _git(root, *store, "--work-tree=.", "add", "--all", ".")
            hashes.append(_git(root, *store, "write-tree").decode().strip())
        patch = _git(before, *store, "diff-tree", "-p", "-M", "--text", *hashes)
        values = {
            "instance_id": "demo__demo-1",
            "repo": "demo/demo",
            "base_commit": "0" * 40,
            "problem_statement": "It breaks.",
            "patch": patch.decode("utf-8", "surrogateescape"),
            "snapshot": str(before),
        }
        return Instance(**(values | fields))

    def applied(self, old: Tree, patch: str) -> Tree:
        """The tree after a strict `git apply`."""
        root = self.write(old)
        _git(root, "apply", "-", stdin=patch.encode("utf-8", "surrogateescape"))
        return {
            file.relative_to(root).as_posix(): file.read_bytes()
            for file in root.rglob("*")
            if file.is_file()
        }


def _git(root: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        ["git", "-c", "core.quotePath=false", *arguments],
        cwd=root,
        input=stdin,
        capture_output=True,
        env={
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(root.parent),
        },
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture(scope="session")
def shared_workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """For property tests, whose examples share their fixtures."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def small(shared_workshop: Workshop) -> Instance:
    """An instance with one file, `a.py`, of one line."""
    return shared_workshop.instance({"a.py": b"x\n"}, {"a.py": b"y\n"})
