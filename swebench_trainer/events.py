"""The events that lifecycle hooks receive.

Each hook gets one frozen object, so that fields can be added without breaking
plugins. `hook` is the name of the hook.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class RecipeLoaded:
    """The recipe is valid. `settings` is the resolved recipe as JSON-able values."""

    hook: ClassVar[str] = "recipe_loaded"

    path: Path
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class RunStarted:
    """The run directory is locked; `attempt` counts from 1."""

    hook: ClassVar[str] = "run_started"

    run_dir: Path
    stages: tuple[str, ...]
    attempt: int


@dataclass(frozen=True)
class StageStarted:
    """A stage is about to run; `resumed` if an earlier attempt started it."""

    hook: ClassVar[str] = "stage_started"

    stage: str
    resumed: bool


@dataclass(frozen=True)
class ItemDone:
    """One item of a stage is done. `total` is 0 if it is not known."""

    hook: ClassVar[str] = "item_done"

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

    hook: ClassVar[str] = "stage_finished"

    stage: str
    seconds: float
    summary: Mapping[str, Any]
    skipped: bool = False


@dataclass(frozen=True)
class StageFailed:
    """A stage ended with an error (its text in `error`), or was interrupted."""

    hook: ClassVar[str] = "stage_failed"

    stage: str
    error: str
    interrupted: bool = False


@dataclass(frozen=True)
class RunFinished:
    """Every stage of the recipe is done."""

    hook: ClassVar[str] = "run_finished"

    run_dir: Path
    seconds: float


Event = (
    RecipeLoaded
    | RunStarted
    | StageStarted
    | ItemDone
    | StageFinished
    | StageFailed
    | RunFinished
)
"""Any event, in the order in which a run makes them."""
