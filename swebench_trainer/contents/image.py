"""Read the files of an instance's image without running it."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from swebench_trainer.contents import repositories
from swebench_trainer.contents.archive import CHUNK, members, opened
from swebench_trainer.contents.errors import UnavailableError
from swebench_trainer.contents.importer import import_archive
from swebench_trainer.contents.objects import Objects
from swebench_trainer.git import GitError, git
from swebench_trainer.store.cache import mark_used, partial_path, remove
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Instance

# Only these files are copied from an untrusted repository: they are data, not settings.
_OBJECT = re.compile(
    r"[0-9a-f]{2}/(?:[0-9a-f]{38}|[0-9a-f]{62})"
    r"|pack/pack-(?:[0-9a-f]{40}|[0-9a-f]{64})\.(?:pack|idx)"
)
_SHALLOW = re.compile(rb"(?:(?:[0-9a-f]{40}|[0-9a-f]{64})\n)*")
_MAX_SHALLOW = 10_000_000

Take = Callable[[str], Iterator[bytes] | None]
"""Return a directory or file of an image as a tar archive, or `None` if it is missing."""


class Archives(Protocol):
    """Reads files of images without running them.

    Every method raises `ValueError` with a one-line reason for a problem of one image,
    and `PrerequisiteError` if no image can be read at all.
    """

    def image_id(self, image: str) -> str:
        """Return the digest of an image; pull it if it is missing."""

    def unstarted_container(self, image_id: str) -> AbstractContextManager[Take]:
        """Create a container that is never started, and remove it at the end."""

    def close(self) -> None:
        """Close connections."""


class ImageTrees:
    """The repositories of images, merged in the user's cache.

    Copies the git objects of an image if they include `base_commit`, and the plain files
    otherwise, into one bare repository per `repo`, which stores equal files once.

    Args:
        archives: Access to the images.
    """

    def __init__(self, archives: Archives) -> None:
        self._archives = archives
        self._lock = threading.Lock()
        self._open: dict[Path, Objects] = {}

    def tree(self, instance: Instance) -> repositories.GitTree:
        """Return the files in an instance's image, at `base_commit` if it has a repository.

        Raises:
            ValueError: The files cannot be read; the message is one line.
            PrerequisiteError: git is not installed, or no image can be read.
        """
        if not instance.image:
            raise ValueError("the row names no image")
        try:
            with self._lock:
                return self._tree(instance)
        except (GitError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            what = f"no files from {instance.image}: {reason}"
            raise UnavailableError(what) from error

    def close(self) -> None:
        """Stop the reader processes."""
        with self._lock:
            for objects in self._open.values():
                objects.close()
            self._open.clear()
        self._archives.close()

    def _tree(self, instance: Instance) -> repositories.GitTree:
        commit = instance.base_commit
        wanted = commit if repositories.COMMIT.fullmatch(commit) else ""
        kind = "sha256" if len(wanted) == 64 else "sha1"
        place = repositories.repository_path("images", instance.repo, kind)
        mark_used(place)
        objects = self._open.setdefault(place, Objects(place))
        # The ref, not the commit: a failed fetch may leave some of the objects.
        if wanted and place.is_dir() and objects.has(f"refs/contents/{wanted}"):
            return repositories.GitTree(objects, wanted)
        image_id = self._archives.image_id(instance.image)
        ref = f"refs/contents/{digest([image_id, instance.workdir])}"
        with repositories.repository_lock(place) as lock:
            if not repositories.is_readable(place):
                objects.close()
                remove(place)
                _init(place, kind)
            source = _Source(instance.workdir.rstrip("/"), wanted, place, lock)
            if not objects.tree(ref):
                with self._archives.unstarted_container(image_id) as take:
                    if wanted and source.fetch_commit(take):
                        return repositories.GitTree(objects, wanted)
                    source.import_files(take, ref)
        return repositories.GitTree(objects, objects.tree(ref))


@dataclass(frozen=True)
class _Source:
    """A directory of an image to import into a locked cached repository.

    Attributes:
        workdir: The directory, without a slash at the end.
        commit: The commit to import from its repository.
        place: The cached repository.
        lock: Descriptor of the repository's lock.
    """

    workdir: str
    commit: str
    place: Path
    lock: int

    def fetch_commit(self, take: Take) -> bool:
        """Import the commit from the directory's own repository, if it has it.

        Copies only objects into a scratch repository and fetches from there, because
        then git verifies the id of every object.
        """
        new = partial_path(self.place)
        _init(new, "sha256" if len(self.commit) == 64 else "sha1")
        objects = Objects(new)
        try:
            if not self._copy_objects(take, new) or not objects.has(self.commit):
                return False
            repositories.fetch(f"file://{new}", self.place, self.commit, self.lock)
        except (GitError, ValueError):  # incomplete repository: import its plain files
            return False
        finally:
            objects.close()
            remove(new)
        return True

    def import_files(self, take: Take, ref: str) -> None:
        """Import the plain files.

        Raises:
            ValueError: The directory is missing or too large.
            GitError: git cannot store the files.
        """
        chunks = take(f"{self.workdir}/.")
        if chunks is None:
            raise ValueError(f"the image has no directory {self.workdir}")
        import_archive(chunks, self.place, ref, self.lock)

    def _copy_objects(self, take: Take, new: Path) -> bool:
        chunks = take(f"{self.workdir}/.git/objects/.")
        if chunks is None:
            return False
        with opened(chunks) as archive:
            for path, member in members(archive):
                content = archive.extractfile(member) if member.isreg() else None
                if content and _OBJECT.fullmatch(path) and not member.issparse():
                    target = new / "objects" / path
                    target.parent.mkdir(exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file, CHUNK)
        # The list of commits whose parents are missing in the repository.
        if chunks := take(f"{self.workdir}/.git/shallow"):
            with opened(chunks) as archive:
                for member in archive:
                    small = member.isreg() and member.size < _MAX_SHALLOW
                    content = archive.extractfile(member) if small else None
                    if content and _SHALLOW.fullmatch(text := content.read()):
                        (new / "shallow").write_bytes(text)
        return True


def _init(place: Path, kind: str) -> None:
    """Create an empty bare repository without templates."""
    options = ("--quiet", "--bare", "--template=", f"--object-format={kind}")
    git("init", *options, str(place))
