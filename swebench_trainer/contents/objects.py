"""Read the objects of a repository through one long-running git process."""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from swebench_trainer.git import complaint, environment, git_dir, start_git

MAX_FILE = 50_000_000
"""Maximum size of a file in bytes: a small packed file can be huge."""

MAX_LISTING = 64 << 20
"""Maximum size of a file list in bytes: several hundred thousand names."""

_CHUNK = 1 << 20


class Objects:
    """The objects of a repository, by names that the caller has validated.

    `git cat-file --batch` starts with the first request, serves all threads in turn,
    restarts if it dies, and sees objects that are added while it runs.

    Args:
        place: The bare repository, or the `.git` directory of another.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def has(self, revision: str) -> bool:
        """Whether a commit or tree exists and its root directory can be read."""
        return bool(self.tree(revision))

    def tree(self, revision: str) -> str:
        """Return the tree id of a commit or ref, or "" if it cannot be read."""
        try:
            found = self._ask(f"{revision}^{{tree}}")
        except ValueError:
            return ""
        return found[0] if found else ""

    def content(self, blob: str) -> bytes:
        """Return the bytes of a file as git stores them.

        Raises:
            ValueError: The file is missing, damaged or larger than `MAX_FILE`.
        """
        found = self._ask(blob)
        if found is None:
            raise ValueError(f"{self.place} is damaged: object {blob} is missing")
        return found[1]

    def listing(self, revision: str) -> bytes:
        """Return the output of `git ls-tree -r -t -z` for a commit or tree.

        Raises:
            ValueError: The tree cannot be read, or is too large.
        """
        process = self._start("ls-tree", "-r", "-t", "-z", "--full-tree", revision)
        with process:
            assert process.stdout and process.stderr
            listing = process.stdout.read(MAX_LISTING + 1)
            if len(listing) > MAX_LISTING:
                process.kill()
                raise ValueError(f"{revision} has too many files")
            reason = complaint(process.stderr.read(_CHUNK))
        if process.returncode:
            raise ValueError(f"{self.place} is damaged: {reason}")
        return listing

    def close(self) -> None:
        """Stop the process; the next request starts a new one."""
        with self._lock:
            self._end()

    def _ask(self, name: str) -> tuple[str, bytes] | None:
        """Return the id and the bytes of an object, or `None` if it is missing."""
        with self._lock:
            for _ in range(2):
                if self._process is None:
                    self._process = self._start("cat-file", "--batch")
                try:
                    return self._answer(self._process, name)
                except (OSError, EOFError):
                    self._end()
        raise ValueError(f"{self.place} is damaged: git cannot read {name}")

    def _answer(
        self, process: subprocess.Popen[bytes], name: str
    ) -> tuple[str, bytes] | None:
        """Send one request.

        Raises:
            OSError, EOFError: The process died.
            ValueError: The object is larger than `MAX_FILE`.
        """
        assert process.stdin and process.stdout
        process.stdin.write(f"{name}\n".encode())
        process.stdin.flush()
        words = process.stdout.readline().decode().split()
        if not words:
            raise EOFError
        if len(words) != 3:
            return None
        found, size = words[0], int(words[2])
        if size > MAX_FILE:
            _skip(process.stdout, size + 1)
            raise ValueError(f"object {found} has {size / 1e6:.0f} MB")
        content = process.stdout.read(size + 1)
        if len(content) != size + 1:
            raise EOFError
        return found, content[:-1]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        batch = arguments[0] == "cat-file"
        return start_git(
            git_dir(self.place),
            *arguments,
            env=environment(),
            stdin=subprocess.PIPE if batch else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if batch else subprocess.PIPE,
        )

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        assert self._process.stdin and self._process.stdout
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # it died with an unread request
                pipe.close()
        self._process.wait()
        self._process = None


def _skip(stream: IO[bytes], size: int) -> None:
    while size and (chunk := stream.read(min(size, _CHUNK))):
        size -= len(chunk)
    if size:
        raise EOFError
