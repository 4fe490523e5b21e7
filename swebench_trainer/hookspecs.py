"""The hooks of swebench-trainer.

A plugin is a distribution called `swebench-trainer-NAME` with an entry point in
the group `swebench_trainer`. It implements hooks with

    from swebench_trainer import hookimpl

An implementation may take fewer arguments than the hook, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pluggy
from pydantic import BaseModel

from swebench_trainer import events
from swebench_trainer.types import Instance, Pair

PROJECT = "swebench_trainer"
"""pluggy project name and entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """The callback that registration hooks receive."""

    def __call__(
        self,
        name: str,
        factory: Any,
        *,
        config: type[BaseModel] | None = None,
        summary: str = "",
    ) -> None:
        """Register `factory` under `name`.

        Args:
            name: Value of `use` in a recipe.
            factory: Called with the validated table; imports heavy libraries.
            config: Model of the table, a subclass of the kind's base table in
                `swebench_trainer.recipe.models`; `None` means the base table.
            summary: One line for `swebench-train plugins`; default: the first line of
                the factory's docstring.
        """


# --- Registration: called once, when plugins are loaded. Must be fast. ---


@hookspec
def register_sources(register: Register) -> None:
    """Register instance sources (`[data] use`); a factory returns a `Source`.

    Since 0.1.
    """


@hookspec
def register_backends(register: Register) -> None:
    """Register model backends (`[model] use`); a factory returns a `Backend`.

    Since 0.1.
    """


@hookspec
def register_graders(register: Register) -> None:
    """Register graders (`[grade] use`); a factory returns a `Grader`.

    Since 0.1.
    """


@hookspec
def register_pair_strategies(register: Register) -> None:
    """Register pair strategies (`[pairs] use`); a factory returns a `PairStrategy`.

    Since 0.1.
    """


@hookspec
def register_prompt_styles(register: Register) -> None:
    """Register prompt styles (`[prompt] use`); a factory returns a `PromptStyle`.

    Since 0.1.
    """


@hookspec
def register_publishers(register: Register) -> None:
    """Register publishers (`[publish] use`); a factory returns a `Publisher`.

    Since 0.1.
    """


# --- Lifecycle: observers. Errors are reported and do not end the run; a call that
# does not return blocks it, and the log names the plugin. ---


@hookspec
def recipe_loaded(event: events.RecipeLoaded) -> None:
    """Called once the recipe is validated; plugins that load later get the call then.

    Since 0.1.
    """


@hookspec
def run_started(event: events.RunStarted) -> None:
    """Called when the run directory is locked and the first stage is about to start.

    Since 0.1.
    """


@hookspec
def stage_started(event: events.StageStarted) -> None:
    """Called before a stage runs, but not for a finished stage.

    Since 0.1.
    """


@hookspec
def item_done(event: events.ItemDone) -> None:
    """Called when one item (an instance, a candidate, a step) of a stage is done.

    Since 0.1.
    """


@hookspec
def stage_finished(event: events.StageFinished) -> None:
    """Called when a stage's files are complete, also for a finished stage.

    Since 0.1.
    """


@hookspec
def stage_failed(event: events.StageFailed) -> None:
    """Called when a stage ends with an error, before the error is raised.

    Since 0.1.
    """


@hookspec
def run_finished(event: events.RunFinished) -> None:
    """Called when all selected stages are done, but not after a failure.

    Since 0.1.
    """


# --- Decisions: results are combined independently of the order of plugins. ---


@hookspec
def drop_instances(
    instances: Sequence[Instance], stage: str
) -> Mapping[str, str] | None:
    """Drop instances: returns a mapping of instance id to reason.

    Called by `prepare` with every instance. The sequence may be on disk, so iterate
    over it and keep only what you need. `None` drops none. An id that is not among
    `instances` is an error. An instance is dropped if any plugin drops it; the
    reasons of all plugins are kept.

    Since 0.1.
    """


@hookspec
def drop_pairs(pairs: Sequence[Pair]) -> Mapping[int, str] | None:
    """Drop pairs: returns a mapping of position in `pairs` to reason.

    Called by `pairs` with the strategy's pairs. `None` drops none. A position outside
    the sequence is an error. A pair is dropped if any plugin drops it.

    Since 0.1.
    """


@hookspec
def report_rows(run_dir: str) -> Mapping[str, str] | None:
    """Add rows to the run's closing report: returns a mapping of label to value.

    Called once, when the run has finished. `None` adds none. The same label from two
    plugins is an error that names both.

    Since 0.1.
    """
