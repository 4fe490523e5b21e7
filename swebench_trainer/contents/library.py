"""Find the files of an instance's repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from swebench_trainer.contents.directory import Directory
from swebench_trainer.contents.errors import UnavailableError
from swebench_trainer.contents.image import Archives, ImageTrees
from swebench_trainer.contents.repositories import Repositories
from swebench_trainer.contracts import Tree
from swebench_trainer.errors import PrerequisiteError, UnusableInstance
from swebench_trainer.recipe.models import ContentsTable
from swebench_trainer.types import Contents, Instance

_OPEN = 8
"""Number of open trees: candidates of an instance follow each other."""


class Library:
    """Opens the files of a repository from the first place that has them.

    Args:
        table: The recipe's `[contents]`.
        archives: Access to images.
    """

    def __init__(self, table: ContentsTable, archives: Archives) -> None:
        self._places = table.places
        self._repositories = Repositories(table.repositories)
        self._images = ImageTrees(archives)
        self._open_at: Mapping[str, Callable[[Instance], Tree]] = {
            "task": _of_task,
            "git": lambda i: self._repositories.tree(i.repo, i.base_commit),
            "image": self._images.tree,
        }
        self._trees: dict[str, tuple[Contents, Tree]] = {}

    def open(self, instance: Instance) -> tuple[Contents, Tree]:
        """Open the files at `base_commit`, at the place that `prepare` found, if it did.

        Returns:
            The place and the files.

        Raises:
            ValueError: No place has the files; the message has a reason for each.
            UnavailableError: The same, and for one place the row is not at fault.
        """
        key = instance.instance_id
        found = self._trees.pop(key) if key in self._trees else self._find(instance)
        self._trees[key] = found
        if len(self._trees) > _OPEN:
            del self._trees[next(iter(self._trees))]
        return found

    def is_local(self, instance: Instance) -> bool:
        """Whether `open` would use the files that come with the row, without a fetch."""
        local = bool(instance.snapshot) and Path(instance.snapshot).is_dir()
        return local and "task" in (instance.contents, self._places[0])

    def close(self) -> None:
        """Stop the reader processes."""
        self._trees.clear()
        self._repositories.close()
        self._images.close()

    def _find(self, instance: Instance) -> tuple[Contents, Tree]:
        reasons = []
        kind: type[UnusableInstance] = UnusableInstance
        for place in (instance.contents,) if instance.contents else self._places:
            try:
                return place, self._open_at[place](instance)
            except (ValueError, PrerequisiteError) as error:
                if isinstance(error, PrerequisiteError | UnavailableError):
                    kind = UnavailableError
                reasons.append(f"{place}: {' '.join(str(error).split()).rstrip('.')}")
        what = "no place of [contents] has the repository's files"
        raise kind(what, "; ".join(reasons))


class Files:
    """The files of one instance, opened on first use.

    Attributes:
        place: Where they were found; empty until then.
    """

    def __init__(self, library: Library, instance: Instance) -> None:
        self._library = library
        self._instance = instance
        self._tree: Tree | None = None
        self.place: Contents = ""

    def open(self) -> Tree:
        """See `Library.open`."""
        if self._tree is None:
            self.place, self._tree = self._library.open(self._instance)
        return self._tree

    def local_tree(self) -> Tree | None:
        """Return the files if they are open or come with the row; never fetch them."""
        if self._tree is None and self._library.is_local(self._instance):
            self.open()
        return self._tree


def _of_task(instance: Instance) -> Tree:
    if not instance.snapshot:
        raise ValueError("the row has no files")
    if not Path(instance.snapshot).is_dir():
        raise ValueError(f"{instance.snapshot} does not exist")
    return Directory(instance.snapshot)
