"""The events that lifecycle hooks receive.

Each hook gets one frozen object, so that fields can be added without breaking
plugins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RecipeLoaded:
    """The recipe is valid. `settings` is the resolved recipe as JSON-able values."""

    path: Path
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class RunStarted:
    """The run directory is locked; `attempt` counts from 1."""

    run_dir: Path
    stages: tuple[str, ...]
    attempt: int


@dataclass(frozen=True)
class StageStarted:
    """A stage is about to run; `resumed` if an earlier attempt started it."""

    stage: str
    resumed: bool


@dataclass(frozen=True)
class ItemDone:
    """One item of a stage is done. `total` is 0 if it is not known."""

    stage: str
    item: str
    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True)
class StageFinished:
    """A stage's files are complete; `skipped` if an earlier attempt completed them.

    Attributes:
        summary: The figures of the stage's closing line, by label.
    """

    stage: str
    seconds: float
    summary: Mapping[str, Any]
    skipped: bool = False


@dataclass(frozen=True)
class StageFailed:
    """A stage ended with an error (its text in `error`), or was interrupted."""

    stage: str
    error: str
    interrupted: bool = False


@dataclass(frozen=True)
class RunFinished:
    """Every stage of the recipe is done."""

    run_dir: Path
    seconds: float
