"""The files of an instance's image, which is never run."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from swebench_trainer.contents.archive import CHUNK, members, opened
from swebench_trainer.contents.cache import held, kept_at, usable
from swebench_trainer.contents.commands import GitError, git
from swebench_trainer.contents.git import COMMIT, GitTree, fetch
from swebench_trainer.contents.importer import import_archive
from swebench_trainer.contents.objects import Objects
from swebench_trainer.contents.reasons import Unavailable
from swebench_trainer.store.digest import digest
from swebench_trainer.store.kept import note_use, remove, unfinished
from swebench_trainer.types import Instance

# Of a repository that may be made to harm whoever runs git in it, these are data.
_OBJECT = re.compile(
    r"[0-9a-f]{2}/(?:[0-9a-f]{38}|[0-9a-f]{62})"
    r"|pack/pack-(?:[0-9a-f]{40}|[0-9a-f]{64})\.(?:pack|idx)"
)
_SHALLOW = re.compile(rb"(?:(?:[0-9a-f]{40}|[0-9a-f]{64})\n)*")
_MAX_SHALLOW = 10_000_000

Take = Callable[[str], Iterator[bytes] | None]
"""Gives a directory or file of an image as a tar archive; `None` if it is not there."""


class Archives(Protocol):
    """Images whose files can be had, though nothing in them is run.

    Every method raises `ValueError` with the reason in a line for what is wrong with
    one image, and `PrerequisiteError` where no image can be had at all.
    """

    def image_id(self, image: str) -> str:
        """The digest of an image, which is pulled when it is not here."""

    def unstarted_container(self, image_id: str) -> AbstractContextManager[Take]:
        """A container that is never started, and gone in the end."""

    def close(self) -> None:
        """Lets go of connections."""


class ImageTrees:
    """The repositories of images, brought together in the user's cache.

    Git's objects are taken out of an image, if `base_commit` is among them, and else
    the plain files. Either goes into one bare repository for all images of an
    instance's `repo`, where equal files are kept once, and stays there.

    Args:
        archives: The way to the images.
    """

    def __init__(self, archives: Archives) -> None:
        self._archives = archives
        self._lock = threading.Lock()
        self._open: dict[Path, Objects] = {}

    def tree(self, instance: Instance) -> GitTree:
        """The files in an instance's image, at `base_commit` if it has a repository.

        Raises:
            ValueError: They cannot be had; the message is one line that says why.
            PrerequisiteError: There is no git, or no way to any image.
        """
        if not instance.image:
            raise ValueError("the row names no image")
        try:
            with self._lock:
                return self._tree(instance)
        except (GitError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Unavailable(f"no files from {instance.image}: {reason}") from error

    def close(self) -> None:
        """Ends the programs that read."""
        with self._lock:
            for objects in self._open.values():
                objects.close()
            self._open.clear()
        self._archives.close()

    def _tree(self, instance: Instance) -> GitTree:
        commit = instance.base_commit
        wanted = commit if COMMIT.fullmatch(commit) else ""
        kind = "sha256" if len(wanted) == 64 else "sha1"
        place = kept_at("images", instance.repo, kind)
        note_use(place)
        objects = self._open.setdefault(place, Objects(place))
        # The ref, not the commit: a fetch that fails may leave some of the objects.
        if wanted and place.is_dir() and objects.has(f"refs/contents/{wanted}"):
            return GitTree(objects, wanted)
        image_id = self._archives.image_id(instance.image)
        ref = f"refs/contents/{digest([image_id, instance.workdir])}"
        with held(place) as lock:
            if not usable(place):
                objects.close()
                remove(place)
                _init(place, kind)
            source = _Source(instance.workdir, wanted, place, lock)
            if not objects.tree(ref):
                with self._archives.unstarted_container(image_id) as take:
                    if wanted and source.fetch_commit(take):
                        return GitTree(objects, wanted)
                    source.import_files(take, ref)
        return GitTree(objects, objects.tree(ref))


class _Source:
    """A directory of an image, on its way into a repository of ours that is held.

    Args:
        workdir: The directory.
        commit: The commit that is wanted of its repository.
        place: Our repository.
        lock: The lock of it.
    """

    def __init__(self, workdir: str, commit: str, place: Path, lock: int) -> None:
        self._workdir = workdir.rstrip("/")
        self._commit = commit
        self._place = place
        self._lock = lock

    def fetch_commit(self, take: Take) -> bool:
        """Takes the commit out of the directory's own repository, if it has it.

        Only objects are copied, into a new repository beside ours, and fetched from
        there, because git then checks that each is what its id says.
        """
        new = unfinished(self._place)
        _init(new, "sha256" if len(self._commit) == 64 else "sha1")
        objects = Objects(new)
        try:
            if not self._copy_objects(take, new) or not objects.has(self._commit):
                return False
            fetch(f"file://{new}", self._place, self._commit, self._lock)
        except (GitError, ValueError):  # half a repository: its files are still files
            return False
        finally:
            objects.close()
            remove(new)
        return True

    def import_files(self, take: Take, ref: str) -> None:
        """Takes the files themselves.

        Raises:
            ValueError: There is no such directory, or too much in it.
            GitError: git cannot store them.
        """
        chunks = take(f"{self._workdir}/.")
        if chunks is None:
            raise ValueError(f"the image has no directory {self._workdir}")
        import_archive(chunks, self._place, ref, self._lock)

    def _copy_objects(self, take: Take, new: Path) -> bool:
        chunks = take(f"{self._workdir}/.git/objects/.")
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
        for text in self._shallow(take):
            (new / "shallow").write_bytes(text)
        return True

    def _shallow(self, take: Take) -> Iterator[bytes]:
        """Which commits of the repository have no parents in it."""
        if (chunks := take(f"{self._workdir}/.git/shallow")) is None:
            return
        with opened(chunks) as archive:
            for member in archive:
                if member.isreg() and member.size < _MAX_SHALLOW:
                    content = archive.extractfile(member)
                    text = content.read() if content else b""
                    if _SHALLOW.fullmatch(text):
                        yield text


def _init(place: Path, kind: str) -> None:
    """Makes an empty bare repository, with nothing of anybody else's in it."""
    options = ("--quiet", "--bare", "--template=", f"--object-format={kind}")
    git("init", *options, str(place))
