"""Paths of a run directory, and the records of started and finished stages."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swebench_trainer.errors import StageError
from swebench_trainer.store.jsonl import damaged, read_json, write_json
from swebench_trainer.store.outputs import changes_of, record_files

FORMAT = 2
"""Version of the files of run directories and gradings; files without it have 1."""

REASONS = ("dropped.jsonl", "leakage.jsonl", "stats.json")
"""Files with the reasons of a refusal; a stage with only these has no results."""


@dataclass(frozen=True)
class StageDir:
    """The directory of one stage.

    `fingerprint.json` is written first and records the settings; `stage.json` is written
    last and marks the stage as complete.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.path.name

    def file(self, *parts: str) -> Path:
        """A file or directory of the stage."""
        return self.path.joinpath(*parts)

    def begun(self) -> dict[str, Any] | None:
        """The fingerprint that the stage was begun with, or `None`."""
        return _record(self.file("fingerprint.json"))

    def finished(self) -> dict[str, Any] | None:
        """The manifest of the finished stage, or `None`."""
        return _record(self.file("stage.json"), "figures")

    def begin(self, fingerprint: dict[str, Any]) -> None:
        """Record the settings of the stage."""
        write_json(self.file("fingerprint.json"), fingerprint)

    def forget(self) -> None:
        """Undo `begin` if the stage has no results yet, so that settings may change."""
        there = {path.name for path in self.path.iterdir()}
        if "fingerprint.json" in there and there <= {"fingerprint.json", *REASONS}:
            self.file("fingerprint.json").unlink()

    def finish(self, manifest: dict[str, Any]) -> None:
        """Record that all files of the stage are complete, and what they are."""
        files = record_files(self.path)
        write_json(self.file("stage.json"), {**manifest, "files": files})

    def adopt(self, fingerprint: dict[str, Any]) -> None:
        """Record another fingerprint of the stage, whose results stay valid."""
        self.begin(fingerprint)
        if manifest := self.finished():
            path = self.file("stage.json")
            recorded = path.stat().st_mtime_ns
            write_json(path, {**manifest, **fingerprint})
            os.utime(path, ns=(recorded, recorded))  # when its files were recorded

    def accept(self) -> None:
        """Record the files of a finished stage as they are now."""
        if manifest := self.finished():
            self.finish(manifest)

    def require_unchanged(
        self, wanted: Callable[[str], bool] = lambda name: True
    ) -> None:
        """Raise if a file of the finished stage is not as the stage left it.

        Args:
            wanted: Whether to check the file with this relative path.

        Raises:
            StageError: A file is missing or different.
        """
        record = (self.finished() or {}).get("files", {})
        if not isinstance(record, dict):
            raise damaged(self.file("stage.json"), "files is not an object")
        if not record:
            return
        recorded = self.file("stage.json").stat().st_mtime_ns
        found = [*changes_of(self.path, record, recorded, wanted)]
        if found:
            path, difference = found[0]
            more = f"; {len(found) - 1} more files changed" if found[1:] else ""
            raise StageError(
                f"{path} has changed since stage {self.name} finished: {difference}{more}.",
                hint=f"Restore the file, or rerun the stage with --redo {self.name} (the "
                "old files are moved aside).",
            )


def _record(path: Path, *keys: str) -> dict[str, Any] | None:
    """A record that `begin` or `finish` wrote; `None` if the file is missing."""
    value: dict[str, Any] | None = read_json(path)
    for key in keys:
        if value is not None and key not in value:
            raise damaged(path, f"{key} is missing")
    return value


@dataclass(frozen=True)
class RunDir:
    """The directory of one run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe as written."""
        return self.path / "recipe.toml"

    @property
    def resolved(self) -> Path:
        """All settings, including defaults."""
        return self.path / "recipe.resolved.json"

    @property
    def facts(self) -> Path:
        """Versions, host, device and attempts."""
        return self.path / "run.json"

    @property
    def lock(self) -> Path:
        """Lock file, which names the process that owns the directory."""
        return self.path / "lock.json"

    @property
    def events(self) -> Path:
        """One row per event of every attempt."""
        return self.path / "events.jsonl"

    def attempt_log(self, attempt: int) -> Path:
        """The log file of one attempt."""
        return self.path / "logs" / f"attempt_{attempt}" / "swebench-train.log"

    def stage(self, name: str) -> StageDir:
        """The directory of a stage."""
        return StageDir(self.path / "stages" / name)

    def set_aside(self, stage: StageDir) -> None:
        """Move a stage's directory to `superseded/`, so that the stage can rerun."""
        move_aside(stage.path, self.path / "superseded")


def move_aside(path: Path, folder: Path) -> Path:
    """Move `path` into `folder` under the first free name: `name.1`, `name.2`, ….

    Returns:
        The new path.
    """
    folder.mkdir(exist_ok=True)
    number = 1
    while (target := folder / f"{path.name}.{number}").exists():
        number += 1
    return path.rename(target)
