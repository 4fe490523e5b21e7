"""A repository's files in a directory on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from swebench_trainer.contents.paths import UNSAFE, check_path

_LINK, _FOLDER = "120000", "040000"


class Directory:
    """A `Tree` on disk; links are not followed."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def read(self, path: str) -> bytes | None:
        """See `Tree.read`."""
        place = self._locate(path)
        if place is None or not stat.S_ISREG(place.lstat().st_mode):
            return None
        return place.read_bytes()

    def mode(self, path: str) -> str:
        """See `Tree.mode`."""
        place = self._locate(path)
        if place is None:
            return ""
        bits = place.lstat().st_mode
        if stat.S_ISREG(bits):
            return "100755" if bits & stat.S_IXUSR else "100644"
        return _FOLDER if stat.S_ISDIR(bits) else _LINK

    def paths(self) -> Sequence[str]:
        """See `Tree.paths`."""
        return self._paths

    def _locate(self, path: str) -> Path | None:
        """Return the location of `path`, or `None` if it does not exist.

        Only the last part of the path may be a link, so the location is inside the
        directory.
        """
        check_path(path)
        here = self._root
        parts = path.split("/")
        try:
            for number, part in enumerate(parts, start=1):
                here /= part
                if stat.S_ISLNK(here.lstat().st_mode) and number < len(parts):
                    raise ValueError(UNSAFE)
        except FileNotFoundError:
            return None
        except OSError as error:  # a file where a directory should be, a name too long
            raise ValueError(UNSAFE) from error
        return here

    @cached_property
    def _paths(self) -> list[str]:
        found = []
        for folder, names, files in os.walk(self._root):
            names[:] = [name for name in names if name.lower() != ".git"]
            for place in (Path(folder, name) for name in files):
                if stat.S_ISREG(place.lstat().st_mode):
                    found.append(place.relative_to(self._root).as_posix())
        return sorted(found)
