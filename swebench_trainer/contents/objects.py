"""The objects of one repository, read by a program that stays."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import IO

from swebench_trainer.git import complaint, environment, git_dir, start_git

MAX_FILE = 50_000_000
"""Bytes of the largest file that is read; what is packed small may be huge."""

MAX_LISTING = 64 << 20
"""Bytes of the longest list of files: several hundred thousand names."""

_CHUNK = 1 << 20


class Objects:
    """What a repository holds, by names that are known to be harmless.

    `git cat-file --batch` is started by the first who asks, serves all threads in turn,
    is started again if it has died, and finds what is added meanwhile.

    Args:
        place: The bare repository, or the `.git` of one that is not.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def has(self, revision: str) -> bool:
        """Whether a commit or tree can be read, its uppermost directory at least."""
        return bool(self.tree(revision))

    def tree(self, revision: str) -> str:
        """The id of the tree of a commit or ref; empty where it cannot be read."""
        try:
            found = self._ask(f"{revision}^{{tree}}")
        except ValueError:
            return ""
        return found[0] if found else ""

    def content(self, blob: str) -> bytes:
        """The bytes of a file, as git has them.

        Raises:
            ValueError: It is not there, damaged, or larger than `MAX_FILE`.
        """
        found = self._ask(blob)
        if found is None:
            raise ValueError(f"{self.place} is damaged: it lacks object {blob}")
        return found[1]

    def listing(self, revision: str) -> bytes:
        """Everything below a commit or tree, as `git ls-tree -r -t -z` prints it.

        Raises:
            ValueError: It cannot be read, or there is too much of it.
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
        """Ends the program; it is started again if need be."""
        with self._lock:
            self._end()

    def _ask(self, name: str) -> tuple[str, bytes] | None:
        """The id and the bytes of an object; `None` where there is none."""
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
        """Asks once.

        Raises:
            OSError, EOFError: The program has died.
            ValueError: The object is larger than `MAX_FILE`.
        """
        assert process.stdin and process.stdout
        process.stdin.write(f"{name}\n".encode())
        process.stdin.flush()
        words = process.stdout.readline().decode().split()
        if len(words) != 3:
            if not words:
                raise EOFError
            return None
        found, _, length = words
        size = int(length)
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
            *(git_dir(self.place), *arguments),
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
            try:
                pipe.close()
            except OSError:  # it had died with a question unread
                continue
        self._process.wait()
        self._process = None


def _skip(stream: IO[bytes], size: int) -> None:
    while size and (chunk := stream.read(min(size, _CHUNK))):
        size -= len(chunk)
    if size:
        raise EOFError
