"""Which way the files of an instance's repository are had."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from swebench_trainer.contents.directory import Directory
from swebench_trainer.contents.git import Repositories
from swebench_trainer.contents.image import Archives, ImageTrees
from swebench_trainer.contents.reasons import Unavailable
from swebench_trainer.contracts import Tree
from swebench_trainer.errors import PrerequisiteError, UnusableInstance
from swebench_trainer.recipe.models import ContentsTable
from swebench_trainer.types import Contents, Instance

_OPEN = 8
"""Trees kept open: the candidates of an instance come one behind the other."""


class Library:
    """Opens the files of repositories, each by the first place that has them.

    Args:
        table: The recipe's.
        archives: The way to images.
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
        self._kept: OrderedDict[str, tuple[Contents, Tree]] = OrderedDict()

    def open(self, instance: Instance) -> tuple[Contents, Tree]:
        """Opens the files at `base_commit`, at the place that `prepare` has found if it has.

        Returns:
            The place, and the files.

        Raises:
            ValueError: No place has them; the message says why of each.
            Unavailable: The same, and at one place it is not the row's fault.
        """
        key = instance.instance_id
        if key not in self._kept:
            self._kept[key] = self._find(instance)
            if len(self._kept) > _OPEN:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def at_hand(self, instance: Instance) -> bool:
        """Whether the files would be those that lie beside the row, so that none is fetched."""
        beside = bool(instance.snapshot) and Path(instance.snapshot).is_dir()
        return beside and "task" in (instance.contents, self._places[0])

    def close(self) -> None:
        """Ends the programs that read."""
        self._kept.clear()
        self._repositories.close()
        self._images.close()

    def _find(self, instance: Instance) -> tuple[Contents, Tree]:
        reasons = []
        kind: type[UnusableInstance] = UnusableInstance
        for place in (instance.contents,) if instance.contents else self._places:
            try:
                return place, self._open_at[place](instance)
            except (ValueError, PrerequisiteError) as error:
                if not isinstance(error, ValueError) or isinstance(error, Unavailable):
                    kind = Unavailable
                reasons.append(f"{place}: {' '.join(str(error).split()).rstrip('.')}")
        raise kind(
            "no place of [contents] has the repository's files", "; ".join(reasons)
        )


class Files:
    """The files of one instance, opened when somebody asks for them.

    Attributes:
        place: Where they were found; empty as long as nobody has asked.
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

    def at_hand(self) -> Tree | None:
        """The files if they are open or lie beside the row; nothing is fetched for them."""
        if self._tree is None and self._library.at_hand(self._instance):
            self.open()
        return self._tree


def _of_task(instance: Instance) -> Tree:
    if not instance.snapshot:
        raise ValueError("the row comes without files")
    if not Path(instance.snapshot).is_dir():
        raise ValueError(f"{instance.snapshot} is gone")
    return Directory(instance.snapshot)
