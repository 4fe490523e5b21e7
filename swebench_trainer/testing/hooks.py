"""A plugin that records the events of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swebench_trainer.hookspecs import hookimpl

LIFECYCLE = (
    "recipe_loaded",
    "run_started",
    "stage_started",
    "item_done",
    "stage_finished",
    "stage_failed",
    "run_finished",
)
"""The lifecycle hooks, in the order in which a run calls them."""


@dataclass(frozen=True)
class Heard:
    """One call: the name of the hook, and its event."""

    hook: str
    event: Any


class HookRecorder:
    """Records every event of a run.

    Attributes:
        heard: The calls, in order.
    """

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def of(self, hook: str, stage: str | None = None) -> list[Any]:
        """The events of a hook, optionally of only one stage."""
        return [
            one.event
            for one in self.heard
            if one.hook == hook and stage in (None, getattr(one.event, "stage", ""))
        ]

    def stages(self) -> list[str]:
        """The stages that finished, or were already finished, in order."""
        return [event.stage for event in self.of("stage_finished")]


def _remembers(hook: str) -> Callable[[HookRecorder, Any], None]:
    def remember(self: HookRecorder, event: Any) -> None:
        self.heard.append(Heard(hook, event))

    return remember


for _hook in LIFECYCLE:
    setattr(HookRecorder, _hook, hookimpl(_remembers(_hook)))
