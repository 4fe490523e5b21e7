"""Rows are there whole or not at all, whatever happens to the writer."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from pydantic_core import PydanticSerializationError

from swebench_trainer.errors import StageError
from swebench_trainer.store.jsonl import (
    RowWriter,
    read_json,
    read_rows,
    write_json,
    write_rows,
)


def test_a_torn_last_row_is_left_out_and_then_cut(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2}\n{"n": ')
    assert read_rows(path) == [{"n": 1}, {"n": 2}]
    with RowWriter(path) as rows:
        rows.write({"n": 3})
    assert read_rows(path) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_odd_characters_stay_on_one_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = {"text": "a\u2028b\x85c\r\n\udcff"}
    with RowWriter(path) as rows:
        rows.write(row)
    assert path.read_bytes().count(b"\n") == 1
    assert read_rows(path) == [row]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [row]


def test_a_killed_writer_leaves_whole_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    code = (
        "import sys; from pathlib import Path\n"
        "from swebench_trainer.store.jsonl import RowWriter\n"
        "rows = RowWriter(Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    rows.write({'n': n, 'fill': 'x' * 5000}); n += 1\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 20
    while not (path.exists() and path.stat().st_size > 100_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    rows = read_rows(path)
    assert [row["n"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 10


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_an_error_and_loses_nothing(small_disk):
    path = small_disk / "rows.jsonl"
    with RowWriter(path) as rows:
        with pytest.raises(StageError, match="No space left") as caught:
            for n in range(1000):
                rows.write({"n": n, "fill": "x" * 1000})
        assert "run the same command again" in caught.value.hint
        written = read_rows(path)
        assert [row["n"] for row in written] == list(range(len(written)))
        assert path.read_bytes().endswith(b"\n")
    with pytest.raises(StageError, match="No space left"):
        write_rows(small_disk / "other.jsonl", [{"fill": "x" * 100_000}])
    assert [p.name for p in small_disk.iterdir()] == ["rows.jsonl"]


def test_a_failed_replacement_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"old": True})
    with pytest.raises(PydanticSerializationError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_of_ours_is_named_with_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": \n{"n": 3}\n')
    with pytest.raises(StageError, match=r"rows\.jsonl, line 2 is damaged") as caught:
        read_rows(path)
    assert "--redo" in caught.value.hint
    (tmp_path / "stage.json").write_text("")
    with pytest.raises(StageError, match=r"stage\.json is damaged"):
        read_json(tmp_path / "stage.json")
