"""The test log: streamed to disk as the harness would write it, within a limit."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from types import TracebackType

HEAD_BYTES = 16 << 20
TAIL_BYTES = 4 << 20
"""Far more than honest tests write; parsers read every line that is kept."""

MARKER = re.compile(rb">>>>> [^\n]{0,200}")
MAX_MARKERS = 1000


class CappedLog:
    """A log file that keeps the beginning, the end, and every marker between.

    Output without end can fill neither the disk nor memory. The bytes are decoded
    as the harness does it (UTF-8, what is not becomes U+FFFD).

    Args:
        path: File to write; replaced if it is there.
        head: Bytes that are kept from the beginning.
        tail: Bytes that are kept from the end.
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
        """Bytes that are not in the file."""

    def __enter__(self) -> CappedLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes of the output."""
        head = chunk[: self._head_left]
        self._head_left -= len(head)
        self._file.write(self._decoder.decode(head))
        self._tail += chunk[len(head) :]
        if len(self._tail) > 2 * self._tail_size:
            self._spill()

    def _spill(self) -> None:
        """Lets go of what is no longer near the end, but for its markers."""
        end = len(self._tail) - self._tail_size
        # At a line's end, where there is one, so that no marker is cut in two.
        end = self._tail.rfind(b"\n", max(0, end - 4096), end) + 1 or end
        for marker in MARKER.finditer(self._tail, 0, end):
            if len(self._markers) < MAX_MARKERS:
                begin = max(0, marker.start() - 200)
                begin = self._tail.rfind(b"\n", begin, marker.start()) + 1 or begin
                self._markers.append(bytes(self._tail[begin : marker.end()]))
        self.dropped += end
        del self._tail[:end]

    def close(self) -> None:
        """Writes the end and closes the file."""
        if self._file.closed:
            return
        if self.dropped:
            note = f"\n[{self.dropped} bytes of output left out]\n".encode()
            self._tail[:0] = note + b"".join(line + b"\n" for line in self._markers)
        self._file.write(self._decoder.decode(bytes(self._tail), final=True))
        self._file.close()
