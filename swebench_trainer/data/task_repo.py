"""The `task-repo` source: swebench 5's native format, one directory per instance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import SourceData
from swebench_trainer.data.columns import instance_from_row
from swebench_trainer.data.rows import to_instances
from swebench_trainer.errors import DataError
from swebench_trainer.recipe.models import DataTable, PlacePath
from swebench_trainer.store.digest import digest_path
from swebench_trainer.types import Instance


class TaskRepoTable(DataTable):
    """Keys of `[data] use = "task-repo"`."""

    path: PlacePath
    """Directory that contains `sweb.yaml` and `tasks/<instance id>/`."""


class TaskRepoSource:
    """A swebench 5 task repo: one directory per instance.

    The `repo/` directory of a task, if it exists, is its snapshot.
    """

    def __init__(self, table: TaskRepoTable) -> None:
        self._path = table.path

    def load(self) -> SourceData:
        """Read every task. See `Source.load`."""
        dropped: list[tuple[str, str]] = []
        tasks = self._tasks()

        def make(row: Mapping[str, Any], *, source: str) -> Instance:
            instance = instance_from_row(row, source=source)
            task = (tasks / instance.instance_id).resolve()
            snapshot, dockerfile = task / "repo", task / "Dockerfile"
            return dataclasses.replace(
                instance,
                snapshot=str(snapshot) if snapshot.is_dir() else "",
                dockerfiles=(str(dockerfile),) if dockerfile.is_file() else (),
            )

        rows = self._rows(dropped)
        return to_instances(rows, source=self._path.name, dropped=dropped, make=make)

    def digest(self) -> str:
        """Digest of all files under `tasks/`."""
        try:
            return digest_path(self._tasks())
        except OSError as error:
            raise DataError(f"Cannot read {self._path}: {error}.") from error

    def _tasks(self) -> Path:
        tasks = self._path / "tasks"
        if not tasks.is_dir():
            raise DataError(
                f"{self._path} is not a task repo: tasks/ is missing.",
                hint="Relative paths are resolved from the recipe's directory.",
            )
        return tasks

    def _rows(self, unreadable: list[tuple[str, str]]) -> Iterator[Mapping[str, Any]]:
        import yaml
        from swebench.task.repo import load_task

        errors = (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError)
        for folder in sorted(p for p in self._tasks().iterdir() if p.is_dir()):
            try:
                row = load_task(folder)
            except errors as error:
                unreadable.append((folder.name, f"cannot be read: {error}"))
                continue
            if row.get("instance_id") == folder.name:
                yield row
            else:
                reason = "instance_id differs from the directory name"
                unreadable.append((folder.name, reason))
