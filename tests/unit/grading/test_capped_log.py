from __future__ import annotations

from pathlib import Path

from hypothesis import given, strategies as st

from swebench_trainer.grading.capped_log import CappedLog


def write(path: Path, chunks: list[bytes], *, head: int = 100, tail: int = 50) -> str:
    with CappedLog(path, head=head, tail=tail) as log:
        for chunk in chunks:
            log.write(chunk)
    return path.read_bytes().decode()


@given(st.lists(st.binary(max_size=40)))
def test_short_output_is_logged_as_by_the_harness(tmp_path_factory, chunks) -> None:
    path = tmp_path_factory.getbasetemp() / "short.txt"
    written = write(path, chunks, head=1 << 20, tail=10)
    assert written == b"".join(chunks).decode(errors="replace")


@given(st.lists(st.binary(max_size=40)))
def test_output_within_the_limits_is_complete(tmp_path_factory, chunks) -> None:
    path = tmp_path_factory.getbasetemp() / "fits.txt"
    whole = b"".join(chunks)
    written = write(path, chunks, head=len(whole) // 2, tail=len(whole))
    assert written == whole.decode(errors="replace")


def test_endless_output_keeps_head_markers_and_tail(tmp_path: Path) -> None:
    noise = [b"noise %d\n" % number for number in range(5000)]
    noise[2500] = b"+ : '>>>>> End Test Output'\n"
    written = write(tmp_path / "log", noise, head=1000, tail=500)
    assert len(written) < 3000
    assert written.startswith("noise 0\n")
    assert written.endswith("noise 4999\n")
    assert written.count("+ : '>>>>> End Test Output'\n") == 1
    assert "bytes of output left out]" in written


def test_one_endless_line_is_bounded(tmp_path: Path) -> None:
    written = write(tmp_path / "log", [b"x" * 1000] * 1000)
    assert len(written) < 400
