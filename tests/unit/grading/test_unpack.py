"""Unpacking the archive of an image: completely, and only into the target."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from swebench_trainer.errors import DataError
from swebench_trainer.grading.namespace.unpack import unpack

Member = tuple[str, bytes, str, int]


def archive(*members: Member | tarfile.TarInfo) -> list[bytes]:
    """A tar in small pieces; a member is a name, a type, content or target, a mode."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, kind, content, mode = member
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.mtime = kind, mode, 1_000_000_000
            entry.uid, entry.gid = os.getuid(), os.getgid()
            if kind == tarfile.REGTYPE:
                entry.size = len(content)
            else:
                entry.linkname = content
            tar.addfile(entry, io.BytesIO(content.encode()))
    data = buffer.getvalue()
    return [data[begin : begin + 700] for begin in range(0, len(data), 700)]


FILE, FOLDER = tarfile.REGTYPE, tarfile.DIRTYPE
LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    return target


def test_unpacked_files_have_their_content_mode_time_and_links(target: Path) -> None:
    chunks = archive(
        ("./", FOLDER, "", 0o755),
        ("usr/", FOLDER, "", 0o555),
        ("usr/bin/tool", FILE, "x" * 5000, 0o4755),
        ("usr/bin/same", HARD, "usr/bin/tool", 0o4755),
        ("bin", LINK, "usr/bin", 0o777),
        ("etc/link", LINK, "../../../../etc/passwd", 0o777),
        ("abs", LINK, "/etc/shadow", 0o777),
        ("secret", FILE, "x", 0o000),
        ("queue", tarfile.FIFOTYPE, "", 0o600),
    )
    unpack(iter(chunks), target)
    tool = target / "usr/bin/tool"
    assert tool.read_text() == "x" * 5000
    assert tool.stat().st_mode & 0o7777 == 0o4755
    assert tool.stat().st_mtime == 1_000_000_000
    assert tool.samefile(target / "usr/bin/same")
    assert (target / "usr").stat().st_mode & 0o777 == 0o555
    assert (target / "usr").stat().st_mtime == 1_000_000_000
    assert (target / "bin").readlink() == Path("usr/bin")
    assert (target / "etc/link").readlink() == Path("../../../../etc/passwd")
    assert (target / "abs").readlink() == Path("/etc/shadow")
    assert (target / "queue").is_fifo()
    assert (target / "secret").lstat().st_mode & 0o777 == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_root_keeps_owners(target: Path) -> None:
    entry = tarfile.TarInfo("file")
    entry.uid, entry.gid = 1234, 5678
    unpack(iter(archive(entry)), target)
    state = (target / "file").stat()
    assert (state.st_uid, state.st_gid) == (1234, 5678)


def test_devices_are_left_out(target: Path) -> None:
    chunks = archive(
        ("dev/sda", tarfile.BLKTYPE, "", 0o600), ("dev/mem", tarfile.CHRTYPE, "", 0o600)
    )
    unpack(iter(chunks), target)
    assert list((target / "dev").iterdir()) == []


@pytest.mark.parametrize(
    "members",
    [
        [("../escaped", FILE, "x", 0o644)],
        [("usr/../../escaped", FILE, "x", 0o644)],
        [("/escaped", FILE, "x", 0o644)],
        [("out", LINK, "..", 0o777), ("out/escaped", FILE, "x", 0o644)],
        [("out", LINK, "/", 0o777), ("out/escaped", FOLDER, "", 0o755)],
        [("stolen", HARD, "../victim", 0o644)],
        [("out", LINK, "..", 0o777), ("stolen", HARD, "out/victim", 0o644)],
        [("out", LINK, "../victim", 0o777), ("out", FILE, "x", 0o644)],
    ],
)
def test_nothing_outside_the_target_is_written_or_read(
    members: list[Member], target: Path
) -> None:
    victim = target.parent / "victim"
    victim.write_text("untouched")
    with pytest.raises(DataError):
        unpack(iter(archive(*members)), target)
    assert sorted(path.name for path in target.parent.iterdir()) == ["target", "victim"]
    assert victim.read_text() == "untouched"
    assert victim.stat().st_nlink == 1


def test_a_truncated_archive_is_an_error(target: Path) -> None:
    chunks = archive(("file", FILE, "x" * 5000, 0o644))
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(iter(chunks[:3]), target)


@pytest.mark.parametrize("behind", [b"", b'{"message":"no space left on device"}'])
def test_an_archive_truncated_between_files_is_an_error(
    target: Path, behind: bytes
) -> None:
    whole = b"".join(archive(("a", FILE, "x" * 100, 0o644), ("b", FILE, "y", 0o644)))
    with pytest.raises(DataError, match="is truncated"):
        unpack(iter([whole[:1024], behind]), target)
