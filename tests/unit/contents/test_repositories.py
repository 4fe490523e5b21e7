"""Clones: one each, whole or not at all, and from nowhere else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from origins import commit_index, commit_tree, git

from swebench_trainer.contents.repositories import Repositories
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.store.cache import PruneLimits, entries, prune

ROOT = Path(__file__).parents[3]
OPEN = """
import sys
from swebench_trainer.contents.repositories import Repositories
repositories = Repositories(sys.argv[1])
print(repositories.tree("owner/name", sys.argv[2]).read("a").decode(), flush=True)
repositories.close()
"""
# A git that tells of every command, and dawdles in the midst of a clone as a slow
# network would: it has written, and goes on telling how far it is.
SLOW = """#!/bin/sh
case " $* " in *" clone "*)
  echo clone >> {log}
  if [ -e {dawdle} ]; then
    for last; do :; done
    mkdir -p "$last/objects"; echo half > "$last/HEAD"
    while :; do echo progress >&2 || exit; sleep 0.05; done
  fi
esac
exec {git} "$@"
"""


@pytest.fixture
def slow_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory: `log` has a line per clone; clones wait while `dawdle` exists."""
    folder = tmp_path / "slow"
    folder.mkdir()
    names = {"log": folder / "log", "dawdle": folder / "dawdle"}
    (folder / "git").write_text(SLOW.format(git=shutil.which("git"), **names))
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def opener(origin: Path, commit: str) -> subprocess.Popen[str]:
    """Start another process that opens the tree and prints a file."""
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, f"file://{origin.parents[1]}/{{repo}}", commit],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_all_commits_share_one_clone(origin, clones, cache, slow_git) -> None:
    parents: list[str] = []
    for number in range(4):
        tree = git(origin, "write-tree")
        commit_index(origin, {b"a": ("100644", str(number).encode())})
        tree = git(origin, "rev-parse", "main^{tree}")
        parents.append(commit_tree(origin, tree, *parents[-1:]))
    read = [clones.tree("owner/name", commit).read("a") for commit in parents]
    assert read == [b"0", b"1", b"2", b"3"]
    assert (slow_git / "log").read_text() == "clone\n"
    (place,) = cache.glob("*/")
    assert not list(place.rglob("a"))  # nothing was checked out
    assert str(origin) not in (place / "config").read_text()


def test_a_commit_outside_all_branches_is_fetched(origin, clones, slow_git) -> None:
    first = commit_index(origin, {b"a": ("100644", b"1")})
    assert clones.tree("owner/name", first).read("a") == b"1"
    hidden = commit_index(origin, {b"a": ("100644", b"2")})
    git(origin, "update-ref", "refs/heads/main", first)
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    assert clones.tree("owner/name", hidden).read("a") == b"2"
    again = Repositories(f"file://{origin.parents[1]}/{{repo}}")
    shutil.rmtree(origin)
    assert again.tree("owner/name", hidden).read("a") == b"2"
    again.close()
    assert (slow_git / "log").read_text() == "clone\n"


def test_repositories_with_sha256_ids_can_be_read(tmp_path) -> None:
    place = tmp_path / "origins" / "owner" / "name"
    place.mkdir(parents=True)
    git(place, "init", "-q", "--bare", "-b", "main", "--object-format=sha256")
    commit = commit_index(place, {b"a": ("100644", b"1")})
    clones = Repositories(f"file://{tmp_path}/origins/{{repo}}")
    tree = clones.tree("owner/name", commit)
    assert (tree.read("a"), len(tree.blob("a"))) == (b"1", 64)
    clones.close()


def test_a_missing_commit_is_requested_once(origin, clones) -> None:
    commit_index(origin, {b"a": ("100644", b"1")})
    with pytest.raises(ValueError, match="has no commit 1111") as first:
        clones.tree("owner/name", "1" * 40)
    shutil.rmtree(origin)
    with pytest.raises(ValueError) as second:
        clones.tree("owner/name", "1" * 40)
    assert str(second.value) == str(first.value)
    assert "\n" not in str(first.value)


def test_a_location_without_a_repository_is_requested_once(tmp_path, slow_git) -> None:
    clones = Repositories(f"file://user:secret@/{tmp_path}/{{repo}}")
    reasons = set()
    for digit in "123":
        with pytest.raises(ValueError, match="no clone of") as error:
            clones.tree("owner/name", digit * 40)
        reasons.add(str(error.value))
    assert len(reasons) == 1
    assert (slow_git / "log").read_text() == "clone\n"
    clones.close()


@pytest.mark.parametrize(
    "repo",
    [
        "name",
        "a/b/c",
        "../name",
        "owner/..",
        "owner/.",
        "-x/name",
        "owner/-x",
        "a/b c",
        "owner/na\nme",
        "o;id/n",
        "o/$(id)",
        "",
        "/",
        "ext::sh/x",
        "é/x",
        "a/b\n",
        "./a",
    ],
)
def test_hostile_repository_names_are_refused(clones, repo, slow_git) -> None:
    with pytest.raises(ValueError, match="owner/name"):
        clones.tree(repo, "1" * 40)
    assert not (slow_git / "log").exists()


@pytest.mark.parametrize(
    "commit",
    [
        "main",
        "HEAD",
        "1" * 39,
        "1" * 41,
        "--help",
        "g" * 40,
        "A" * 40,
        "",
        "1" * 40 + "\n",
        "1" * 38 + "^0",
    ],
)
def test_hostile_commit_names_are_refused(origin, clones, commit) -> None:
    commit_index(origin, {b"a": ("100644", b"1")})
    with pytest.raises(ValueError, match="full commit id"):
        clones.tree("owner/name", commit)


def test_addresses_that_run_commands_are_refused(tmp_path) -> None:
    clones = Repositories(f"ext::sh -c touch% {tmp_path}/mark% {{repo}}")
    with pytest.raises(ValueError, match="not allowed"):
        clones.tree("owner/name", "1" * 40)
    assert not (tmp_path / "mark").exists()
    clones.close()


def test_hooks_and_filters_do_not_run(origin, clones, tmp_path, monkeypatch) -> None:
    mark = tmp_path / "mark"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-checkout", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {mark}\n")
        (hooks / name).chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        f"[core]\nhooksPath = {hooks}\n[init]\ntemplateDir = {tmp_path}\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    entries = {b"a": ("100644", b"1"), b".gitattributes": ("100644", b"* filter=x\n")}
    assert clones.tree("owner/name", commit_index(origin, entries)).read("a") == b"1"
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["bare", "normal", "name.git"])
def test_a_directory_is_read_in_place(tmp_path, cache, kind) -> None:
    place = (
        tmp_path / "mirrors" / "owner" / ("name.git" if kind == "name.git" else "name")
    )
    place.mkdir(parents=True)
    git(place, "init", "-q", *(() if kind == "normal" else ("--bare",)))
    commit = commit_index(place, {b"a": ("100644", b"1")})
    place.with_suffix(".lock").touch()  # somebody else's
    before = {path: path.stat().st_mtime_ns for path in place.parent.rglob("*")}
    near = Repositories(f"{tmp_path}/mirrors/{{repo}}")
    assert near.tree("owner/name", commit).read("a") == b"1"
    with pytest.raises(ValueError, match="has no commit"):
        near.tree("owner/name", "1" * 40)
    with pytest.raises(ValueError, match="no clone of"):
        near.tree("owner/other", commit)
    near.close()
    after = {path: path.stat().st_mtime_ns for path in place.parent.rglob("*")}
    assert after == before
    assert not list(cache.glob("*/"))


def test_two_processes_share_one_clone(origin, slow_git) -> None:
    commit = commit_index(origin, {b"a": ("100644", b"1")})
    (slow_git / "log").touch()
    several = [opener(origin, commit) for _ in range(3)]
    assert [process.communicate()[0] for process in several] == ["1\n"] * 3
    assert (slow_git / "log").read_text() == "clone\n"


def test_a_clone_killed_halfway_is_repeated(origin, clones, cache, slow_git) -> None:
    commit = commit_index(origin, {b"a": ("100644", b"1")})
    (slow_git / "dawdle").touch()
    with opener(origin, commit) as victim:
        wait_for(lambda: list(cache.glob("*.new/HEAD")))
        assert not [place for place in cache.iterdir() if not place.suffix]
        victim.send_signal(signal.SIGKILL)
    (slow_git / "dawdle").unlink()
    # The clone that the victim began holds the lock as long as it lives: not for long.
    assert clones.tree("owner/name", commit).read("a") == b"1"
    assert not list(cache.glob("*.new"))
    assert (slow_git / "log").read_text() == "clone\nclone\n"


def test_leftovers_of_a_killed_fetch_are_removed(origin, clones, cache) -> None:
    first = commit_index(origin, {b"a": ("100644", b"1")})
    clones.tree("owner/name", first)
    (place,) = cache.glob("*/")
    (place / "shallow.lock").touch()
    (place / "packed-refs.lock").touch()
    (place / "refs" / "contents").mkdir()
    second = commit_index(origin, {b"a": ("100644", b"2")})
    (place / "refs" / "contents" / f"{second}.lock").touch()
    assert clones.tree("owner/name", second).read("a") == b"2"


def _no_head(place: Path) -> None:
    (place / "HEAD").unlink()


def _empty(place: Path) -> None:
    shutil.rmtree(place)
    place.mkdir()


def _no_objects(place: Path) -> None:
    shutil.rmtree(place / "objects")
    (place / "objects" / "pack").mkdir(parents=True)


def _torn_pack(place: Path) -> None:
    for pack in place.glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        os.truncate(pack, pack.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage", [shutil.rmtree, _no_head, _empty, _no_objects, _torn_pack]
)
@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_missing_or_damaged_clone_is_repeated(
    origin, clones, cache, damage, meanwhile
) -> None:
    commit = commit_index(origin, {b"a": ("100644", b"1")})
    assert clones.tree("owner/name", commit).read("a") == b"1"
    (place,) = cache.glob("*/")
    if not meanwhile:
        clones.close()
    damage(place)
    other = commit_index(origin, {b"a": ("100644", b"2")})
    assert clones.tree("owner/name", other).read("a") == b"2"
    assert clones.tree("owner/name", commit).read("a") == b"1"


def test_reading_a_clone_counts_as_use(origin, clones, cache) -> None:
    commit = commit_index(origin, {b"a": ("100644", b"text")})
    clones.tree("owner/name", commit)
    (lock,) = cache.glob("*.lock")
    os.utime(lock, (0, 0))
    clones.tree("owner/name", commit)
    assert entries(cache)[0].used > time.time() - 60


def test_a_clone_pruned_while_in_use_is_repeated(
    origin, clones, cache, slow_git
) -> None:
    commit = commit_index(origin, {b"a": ("100644", b"text")})
    before = clones.tree("owner/name", commit)
    assert before.read("a") == b"text"
    assert prune(cache, PruneLimits(unused_for=-1)) == 1
    assert clones.tree("owner/name", commit).read("a") == b"text"
    assert (slow_git / "log").read_text() == "clone\nclone\n"


def test_an_unfinished_clone_is_not_pruned(origin, cache, slow_git) -> None:
    commit = commit_index(origin, {b"a": ("100644", b"text")})
    (slow_git / "dawdle").touch()
    process = opener(origin, commit)
    wait_for(lambda: list(cache.glob("*.new/HEAD")))
    assert prune(cache, PruneLimits(unused_for=-1)) == 0
    assert list(cache.glob("*.new/HEAD"))
    process.kill()
    process.communicate()
    # git holds the lock too, until it finds that nobody reads its progress
    wait_for(
        lambda: (
            prune(cache, PruneLimits(unused_for=-1, max_size=0))
            or not any(cache.iterdir())
        )
    )


def test_a_missing_git_raises(clones, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError, match="git is not installed"):
        clones.tree("owner/name", "1" * 40)


def test_a_full_disk_raises_with_the_reason(origin, clones, cache) -> None:
    commit = commit_index(origin, {b"a": ("100644", b"1")})
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")  # as good as full: nothing can be made there
    with pytest.raises(ValueError, match="no clone of"):
        clones.tree("owner/name", commit)


def test_the_number_of_reader_processes_is_bounded(tmp_path) -> None:
    mirrors = tmp_path / "mirrors" / "o"
    near = Repositories(f"{tmp_path}/mirrors/{{repo}}")
    trees = []
    for number in range(20):
        place = mirrors / f"r{number}"
        place.mkdir(parents=True)
        git(place, "init", "-q", "--bare")
        commit = commit_index(place, {b"a": ("100644", str(number).encode())})
        trees.append(near.tree(f"o/r{number}", commit))
    running = [o for o in near._open.values() if o._process is not None]
    assert len(running) <= 16
    assert [tree.read("a") for tree in trees] == [str(n).encode() for n in range(20)]
    near.close()
