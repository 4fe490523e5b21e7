"""Archives of directories, honest and hostile, become trees and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from origins import commit_index, commit_tree, git

from swebench_trainer.contents import archive, importer
from swebench_trainer.contents.image import ImageTrees
from swebench_trainer.store.cache import PruneLimits, prune
from swebench_trainer.types import Instance

Members = list[tuple[tarfile.TarInfo, bytes]]


class FakeImage:
    """An image backed by a local directory or by handmade archives."""

    def __init__(self) -> None:
        self.root = Path("/nonexistent")
        self.archives: dict[str, bytes] = {}
        self.created = 0
        self.id = "sha256:1"

    def image_id(self, image: str) -> str:
        return self.id

    @contextlib.contextmanager
    def unstarted_container(self, image_id: str) -> Iterator[Callable]:
        self.created += 1
        yield self._take

    def close(self) -> None:
        pass

    def _take(self, path: str) -> Iterator[bytes] | None:
        if path in self.archives:
            return pieces(self.archives[path])
        place = self.root / path.lstrip("/")
        if not place.exists():
            return None
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w") as packed:
            packed.add(place, place.name)
        return pieces(whole.getvalue())


def pieces(content: bytes) -> Iterator[bytes]:
    return (content[at : at + 1000] for at in range(0, len(content), 1000))


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def packed(members: Members) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", errors="surrogateescape") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return whole.getvalue()


def instance(commit: str = "1" * 40, **more: str) -> Instance:
    row = {"workdir": "/testbed", "image": "an/image", **more}
    return Instance("o__n-1", "owner/name", commit, "", "", **row)


@pytest.fixture
def image() -> FakeImage:
    return FakeImage()


@pytest.fixture
def trees(image: FakeImage) -> Iterator[ImageTrees]:
    trees = ImageTrees(image)
    yield trees
    trees.close()


@pytest.fixture
def testbed(image: FakeImage, tmp_path: Path) -> Path:
    image.root = tmp_path / "root"
    place = image.root / "testbed"
    place.mkdir(parents=True)
    return place


def files(image: FakeImage, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    image.archives["/testbed/."] = packed(
        [(member("t", tarfile.DIRTYPE), b""), *members]
    )


def test_the_commit_is_read_instead_of_the_plain_files(image, trees, testbed) -> None:
    git(testbed, "init", "-q")
    first = commit_index(testbed, {b"a": ("100755", b"1"), b"l": ("120000", b"a")})
    commit_tree(testbed, git(testbed, "mktree", text=""), first)  # HEAD is elsewhere
    (testbed / "a").write_text("changed")
    (testbed / "untracked").write_text("x")
    tree = trees.tree(instance(first))
    assert tree.paths() == ("a",)
    assert (tree.read("a"), tree.mode("a"), tree.mode("l")) == (
        b"1",
        "100755",
        "120000",
    )


def test_the_second_read_needs_no_container(image, trees, testbed, cache) -> None:
    git(testbed, "init", "-q")
    commit = commit_index(testbed, {b"a": ("100644", b"1")})
    trees.tree(instance(commit))
    trees.tree(instance(commit))
    other = ImageTrees(image)
    assert other.tree(instance(commit)).read("a") == b"1"
    other.close()
    assert image.created == 1
    assert not [p for p in cache.iterdir() if p.suffix not in ("", ".lock")]


def test_pruned_files_are_imported_again(image, trees, testbed, cache) -> None:
    git(testbed, "init", "-q")
    commit = commit_index(testbed, {b"a": ("100644", b"1")})
    trees.tree(instance(commit))
    (lock,) = cache.glob("*.lock")
    os.utime(lock, (0, 0))
    trees.tree(instance(commit))
    assert prune(cache, PruneLimits(unused_for=3600)) == 0
    assert prune(cache, PruneLimits(unused_for=-1)) == 1
    assert trees.tree(instance(commit)).read("a") == b"1"
    assert image.created == 2


def test_images_share_one_repository(image, trees, testbed, cache) -> None:
    git(testbed, "init", "-q")
    large = os.urandom(300_000)
    for number in range(4):
        entries = {b"large": ("100644", large), b"n": ("100644", b"%d" % number)}
        image.id = f"sha256:{number}"
        tree = trees.tree(instance(commit_index(testbed, entries)))
        assert (tree.read("n"), tree.read("large")) == (b"%d" % number, large)
    (place,) = cache.glob("*/")
    assert sum(p.stat().st_size for p in place.rglob("*")) < 2 * len(large)


def test_packed_and_shallow_repositories_can_be_read(
    image, trees, testbed, tmp_path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    git(source, "init", "-q")
    first = commit_index(source, {b"a": ("100644", b"1")})
    commit_index(source, {b"a": ("100644", b"2")})
    second = commit_tree(source, git(source, "rev-parse", "main^{tree}"), first)
    git(source, "symbolic-ref", "HEAD", "refs/heads/main")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{source}", str(testbed))
    assert (testbed / ".git/shallow").exists()
    assert trees.tree(instance(second)).read("a") == b"2"


def test_repositories_with_sha256_ids_can_be_read(image, trees, testbed, cache) -> None:
    git(testbed, "init", "-q", "--object-format=sha256")
    commit = commit_index(testbed, {b"a": ("100644", b"1")})
    assert len(commit) == 64
    assert trees.tree(instance(commit)).read("a") == b"1"
    git(testbed, "update-ref", "-d", "refs/heads/main")
    (testbed / "a").write_text("on disk")
    assert trees.tree(instance("1" * 64)).read("a") == b"on disk"


def test_plain_files_are_imported_without_a_repository(
    image, trees, testbed, cache
) -> None:
    (testbed / "src").mkdir()
    (testbed / "src" / 'odd " \\ né').write_bytes(b"a\r\n")
    (testbed / "run").write_text("#!")
    (testbed / "run").chmod(0o755)
    (testbed / "empty").touch()
    (testbed / "link").symlink_to("../../etc/passwd")
    os.link(testbed / "run", testbed / "same")
    os.mkfifo(testbed / "pipe")
    (testbed / "no files").mkdir()
    Path(os.fsdecode(os.fsencode(testbed) + b"/\xff")).touch()
    tree = trees.tree(instance())
    assert tree.paths() == ("empty", "run", "same", 'src/odd " \\ né')
    assert tree.read('src/odd " \\ né') == b"a\r\n"
    assert tree.read("empty") == b""
    assert (tree.read("same"), tree.mode("same")) == (b"#!", "100755")
    assert tree.mode("link") == "120000"
    assert tree.mode("pipe") == tree.mode("no files") == ""
    other = ImageTrees(image)
    assert other.tree(instance()).blob("run") == tree.blob("run")
    other.close()
    assert image.created == 1
    (place,) = cache.glob("*/")
    assert not list(place.glob("fast_import*"))


def test_plain_files_are_imported_if_the_repository_lacks_the_commit(
    image, trees, testbed
) -> None:
    git(testbed, "init", "-q")
    commit_index(testbed, {b"a": ("100644", b"1")})
    (testbed / "a").write_text("on disk")
    tree = trees.tree(instance())
    assert {path: tree.read(path) for path in tree.paths()} == {"a": b"on disk"}
    assert trees.tree(instance("not a commit")).read("a") == b"on disk"


def test_another_image_has_another_tree(image, trees, testbed) -> None:
    (testbed / "a").write_text("1")
    assert trees.tree(instance()).read("a") == b"1"
    (testbed / "a").write_text("2")
    assert trees.tree(instance()).read("a") == b"1"
    image.id = "sha256:2"
    assert trees.tree(instance()).read("a") == b"2"


def test_plain_files_are_imported_if_the_repository_is_damaged(
    image, trees, testbed
) -> None:
    git(testbed, "init", "-q")
    commit = commit_index(testbed, {b"a": ("100644", b"1")})
    blob = git(testbed, "rev-parse", f"{commit}:a")
    (testbed / ".git/objects" / blob[:2] / blob[2:]).unlink()
    (testbed / "a").write_text("on disk")
    assert trees.tree(instance(commit)).read("a") == b"on disk"


def test_forged_objects_are_rejected(image, trees, testbed) -> None:
    """An object whose id does not match its content is not imported."""
    git(testbed, "init", "-q")
    commit = commit_index(testbed, {b"a": ("100644", b"good")})
    good = git(testbed, "rev-parse", f"{commit}:a")
    bad = git(testbed, "hash-object", "-w", "--stdin", text="evil")
    objects = testbed / ".git/objects"
    (objects / good[:2] / good[2:]).chmod(0o644)
    (objects / good[:2] / good[2:]).write_bytes(
        (objects / bad[:2] / bad[2:]).read_bytes()
    )
    (testbed / "a").write_text("on disk")
    assert trees.tree(instance(commit)).read("a") == b"on disk"
    assert trees.tree(instance(commit)).read("a") == b"on disk"
    (objects / good[:2] / good[2:]).unlink()
    git(testbed, "hash-object", "-w", "--stdin", text="good")
    image.id = "sha256:honest"
    assert trees.tree(instance(commit)).read("a") == b"good"


def swap_in_index(index: Path, one: str, other: str) -> None:
    """Swap two objects in the index of a pack."""
    data = bytearray(index.read_bytes()[:-20])
    count = int.from_bytes(data[8 + 255 * 4 : 8 + 256 * 4])
    ids = 8 + 256 * 4
    at = [(data.index(bytes.fromhex(name), ids) - ids) // 20 for name in (one, other)]
    for table in (ids + 20 * count, ids + 24 * count):  # checksums, places in the pack
        a, b = (slice(table + 4 * n, table + 4 * n + 4) for n in at)
        data[a], data[b] = data[b], data[a]
    index.chmod(0o644)
    index.write_bytes(data + hashlib.sha1(data).digest())


def test_a_forged_index_is_rejected(image, trees, testbed) -> None:
    git(testbed, "init", "-q")
    commit = commit_index(
        testbed, {b"a": ("100644", b"good"), b"b": ("100644", b"evil")}
    )
    names = [git(testbed, "rev-parse", f"{commit}:{path}") for path in "ab"]
    git(testbed, "repack", "-adq")
    (index,) = testbed.glob(".git/objects/pack/*.idx")
    swap_in_index(index, *names)
    assert git(testbed, "cat-file", "blob", names[0]) == "evil"
    # The objects are all there, only their names were wrong: git makes it right.
    tree = trees.tree(instance(commit))
    assert (tree.read("a"), tree.read("b")) == (b"good", b"evil")


def test_programs_of_a_hostile_repository_do_not_run(
    image, trees, testbed, tmp_path
) -> None:
    git(testbed, "init", "-q")
    commit = commit_index(testbed, {b"a": ("100644", b"1")})
    mark = tmp_path / "mark"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
    script.chmod(0o755)
    keys = ("fsmonitor", "pager", "sshCommand", "alternateRefsCommand", "gitProxy")
    config = "".join(f"{key} = {script}\n" for key in keys)
    (testbed / ".git/config").write_text(
        f"[core]\n{config}hooksPath = {tmp_path}\n[uploadpack]\npackObjectsHook = {script}\n"
    )
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        hook = testbed / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(script.read_text())
        hook.chmod(0o755)
    secret = tmp_path / "secret"
    secret.mkdir()
    git(secret, "init", "-q")
    hidden = commit_index(secret, {b"secret": ("100644", b"s")})
    info = testbed / ".git/objects/info"
    info.mkdir(exist_ok=True)
    (info / "alternates").write_text(f"{secret}/.git/objects\n")
    (testbed / "plain").write_text("p")
    assert trees.tree(instance(commit)).read("a") == b"1"
    assert trees.tree(instance(hidden)).paths() == ("plain",)
    assert not mark.exists()


def test_hostile_names_are_skipped(image, trees, tmp_path, cache) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    far = "/".join([".."] * 20)
    image.archives["/testbed/.git/objects/."] = packed(
        [
            (member(f"o/{far}{victim}"), b"evil"),
            (member(f"o/pack/{far}{victim}"), b"evil"),
            (member("o/info/alternates"), b"/tmp\n"),
            (member("o/aa", tarfile.SYMTYPE, str(tmp_path)), b""),
            (member(f"o/aa/{'b' * 38}"), b"not an object"),
            (member(f"o/pack/pack-{'c' * 40}.pack", tarfile.SYMTYPE, str(victim)), b""),
        ]
    )
    files(
        image,
        (member("t/ok"), b"fine"),
        (member(f"t/{far}{victim}"), b"evil"),
        (member(f"/{victim}"), b"evil"),
        (member("t//etc/passwd"), b"evil"),
        (member("t/.git/config"), b"evil"),
        (member("t/x/.GIT/hooks/post-checkout"), b"evil"),
        (member("t/new\nline"), b"evil"),
        (member("t/out", tarfile.SYMTYPE, str(victim)), b""),
        (member("t/passwd", tarfile.LNKTYPE, "t/../../etc/passwd"), b""),
        (member("t/disk", tarfile.BLKTYPE), b""),
        (member("t/null", tarfile.CHRTYPE), b""),
    )
    tree = trees.tree(instance())
    assert tree.paths() == ("ok",)
    assert (tree.read("ok"), tree.read("out"), tree.mode("out")) == (
        b"fine",
        None,
        "120000",
    )
    assert victim.read_text() == "whole"
    assert not [
        p for p in cache.rglob("*") if "evil" in p.name or p.name == "config.evil"
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "victim"]


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b"), ("a", "a/b/c")]
)
def test_a_contradictory_archive_is_refused(image, trees, names) -> None:
    files(image, *((member(f"t/{name}"), b"x") for name in names))
    with pytest.raises(ValueError, match="two entries at"):
        trees.tree(instance())


def sparse_file(name: str, size: int) -> bytes:
    """An archive with a file that consists of a hole."""
    info = tarfile.TarInfo(name)
    header = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    info.pax_headers = header | {
        "GNU.sparse.realsize": str(size),
        "GNU.sparse.name": name,
    }
    content = b"0\n".ljust(512, b"\0")
    info.size = len(content)
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
    return whole.getvalue()


def test_an_archive_above_the_limits_is_refused(image, trees, monkeypatch) -> None:
    image.archives["/testbed/."] = sparse_file("t/hole", 4_000_000_000)
    with pytest.raises(ValueError, match="hole has 4000 MB"):
        trees.tree(instance())
    image.archives["/testbed/."] = sparse_file("t/hole", 10**13)
    with pytest.raises(ValueError, match="more than 5 GB"):
        trees.tree(instance())
    files(image, *((member(f"t/{n}"), b"x" * 100) for n in range(10)))
    with monkeypatch.context() as patch:
        patch.setattr(archive, "MAX_MEMBERS", 9)
        with pytest.raises(ValueError, match="more than 9 files"):
            trees.tree(instance())
    with monkeypatch.context() as patch:
        patch.setattr(importer, "MAX_FILE", 99)
        with pytest.raises(ValueError, match="has 0 MB"):
            trees.tree(instance())
    assert len(trees.tree(instance()).paths()) == 10  # and nothing half was left


@pytest.mark.parametrize("cut", [600, 1500, 2048, 3000])
def test_a_truncated_archive_is_refused(image, trees, cut) -> None:
    files(image, *((member(f"t/{n}"), b"x" * 600) for n in range(3)))
    whole = image.archives["/testbed/."]
    image.archives["/testbed/."] = whole[:cut]
    with pytest.raises(ValueError, match=r"damaged|truncated"):
        trees.tree(instance())
    image.archives["/testbed/."] = whole
    assert trees.tree(instance()).paths() == ("0", "1", "2")


def test_a_full_disk_raises_with_the_reason(image, trees, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    files(image, (member("t/a"), b"x"))
    image.archives["/testbed/.git/objects/."] = packed(
        [(member("o/aa/" + "b" * 38), b"x")]
    )
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(ValueError, match="an/image: No space left on device"):
        trees.tree(instance())


def test_missing_images_and_directories_raise_with_the_reason(image, trees) -> None:
    with pytest.raises(ValueError, match="no directory /testbed"):
        trees.tree(instance())
    with pytest.raises(ValueError, match="names no image"):
        trees.tree(instance(image=""))
