"""Size-limited logs, streamed to disk in the form that the harness writes."""

from __future__ import annotations

import codecs
import re
import time
from pathlib import Path

HEAD_BYTES = 16 << 20
TAIL_BYTES = 4 << 20
"""Far more than honest tests write; parsers read every line in the file."""

MARKER = re.compile(rb">>>>> [^\n]{0,200}")
MAX_MARKERS = 1000
START = b">>>>> Start Test Output"
"""The first marker of the harness."""


class CappedLog:
    """A log file with the beginning, the end, and every marker in between.

    Endless output fills neither the disk nor memory. Bytes are decoded as in the
    harness (UTF-8, with U+FFFD for invalid bytes).

    Args:
        path: File to write; replaced if it exists.
        head: Number of bytes to keep from the beginning.
        tail: Number of bytes to keep from the end.
    """

    def __init__(
        self, path: Path, *, head: int = HEAD_BYTES, tail: int = TAIL_BYTES
    ) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head_left = head
        self._tail_size = tail
        self._tail = bytearray()
        self._markers: list[bytes] = []
        self.dropped = 0
        """Number of bytes left out of the file."""
        self.started: int | None = None
        """When the first marker arrived, in nanoseconds since 1970."""
        self._last = b""

    def __enter__(self) -> CappedLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Add the next bytes of the output."""
        if self.started is None:
            recent = self._last + chunk
            self.started = time.time_ns() if START in recent else None
            self._last = recent[-len(START) :]
        head = chunk[: self._head_left]
        self._head_left -= len(head)
        self._file.write(self._decoder.decode(head))
        self._tail += chunk[len(head) :]
        if len(self._tail) > 2 * self._tail_size:
            self._spill()

    def _spill(self) -> None:
        """Drop bytes that are no longer near the end, except their markers."""
        end = len(self._tail) - self._tail_size
        # Cut at the end of a line if possible, so that no marker is split.
        end = self._tail.rfind(b"\n", max(0, end - 4096), end) + 1 or end
        for marker in MARKER.finditer(self._tail, 0, end):
            if len(self._markers) < MAX_MARKERS:
                begin = max(0, marker.start() - 200)
                begin = self._tail.rfind(b"\n", begin, marker.start()) + 1 or begin
                self._markers.append(bytes(self._tail[begin : marker.end()]))
        self.dropped += end
        del self._tail[:end]

    def close(self) -> None:
        """Write the end and close the file."""
        if self._file.closed:
            return
        if self.dropped:
            note = f"\n[{self.dropped} bytes of output left out]\n".encode()
            self._tail[:0] = note + b"".join(line + b"\n" for line in self._markers)
        self._file.write(self._decoder.decode(bytes(self._tail), final=True))
        self._file.close()
