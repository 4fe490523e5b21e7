"""The stages in order, with what each depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from swebench_trainer.contracts import ItemProgress
from swebench_trainer.errors import RecipeError
from swebench_trainer.grading.docker.archives import DockerArchives
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.plugins.registry import Registry
from swebench_trainer.recipe.models import Recipe, TrainTable
from swebench_trainer.stages import (
    admit,
    evaluate,
    generate,
    grade,
    pairs,
    prepare,
    publish,
    train,
)
from swebench_trainer.stages.context import Stage, StageContext
from swebench_trainer.store.rundir import RunDir


def _has(table: str) -> Callable[[Recipe], bool]:
    return lambda recipe: getattr(recipe, table) is not None


def _admits(recipe: Recipe) -> bool:
    return recipe.grade is not None and recipe.grade.admission_runs > 0


def _grades(recipe: Recipe) -> bool:
    """Whether candidates are graded; `[grade]` may also serve only `[evaluate]`."""
    ungraded = recipe.pairs is not None and not recipe.pairs.needs_grades
    return recipe.grade is not None and recipe.generate is not None and not ungraded


def _max_tokens(recipe: Recipe, registry: Registry) -> Mapping[str, Any]:
    return {"prompt.max_tokens": recipe.prompt.max_tokens}


def _check(table: str, recipe: Recipe, registry: Registry) -> None:
    """Checks the implementation that a table names; `[model]` is sometimes optional."""
    settings = getattr(recipe, table)
    if settings is not None:
        registry.create(settings).check()


_check_model = partial(_check, "model")


def _check_writers(recipe: Recipe, registry: Registry) -> None:
    for table in recipe.generate.writers if recipe.generate else ():
        registry.create(table).check()


def _check_training(table: str, recipe: Recipe, registry: Registry) -> None:
    settings = getattr(recipe, table)
    if isinstance(settings, TrainTable) and recipe.model is not None:
        backend = registry.create(recipe.model)
        if hasattr(backend, "check_training"):
            backend.check_training(settings)


def _check_grader(recipe: Recipe, registry: Registry) -> None:
    if recipe.grade is not None:
        grader = registry.create(recipe.grade)
        grader.check([])
        grader.close()


STAGES = (
    Stage(
        name="prepare",
        run=prepare.run,
        is_wanted=_has("data"),
        tables=("data", "contents", "prompt"),
        extra_settings=prepare.extra_settings,
    ),
    Stage(
        name="admit",
        run=admit.run,
        is_wanted=_admits,
        tables=("grade",),
        reads=("prepare",),
        checks=(_check_grader,),
    ),
    Stage(
        name="sft",
        run=train.run_sft,
        is_wanted=_has("sft"),
        tables=("model", "sft"),
        reads=("prepare", "admit"),
        extra_settings=_max_tokens,
        checks=(partial(_check_training, "sft"), _check_model),
    ),
    Stage(
        name="generate",
        run=generate.run,
        is_wanted=_has("generate"),
        tables=("model", "generate"),
        reads=("prepare", "admit", "sft"),
        checks=(_check_model, _check_writers),
    ),
    Stage(
        name="grade",
        run=grade.run,
        is_wanted=_grades,
        tables=("grade",),
        reads=("prepare", "admit", "generate"),
        checks=(_check_grader,),
    ),
    Stage(
        name="pairs",
        run=pairs.run,
        is_wanted=_has("pairs"),
        tables=("pairs",),
        reads=("prepare", "admit", "generate", "grade"),
    ),
    Stage(
        name="dpo",
        run=train.run_dpo,
        is_wanted=_has("dpo"),
        tables=("model", "dpo"),
        reads=("sft", "pairs"),
        extra_settings=_max_tokens,
        checks=(partial(_check_training, "dpo"), _check_model),
    ),
    Stage(
        name="evaluate",
        run=evaluate.run,
        is_wanted=_has("evaluate"),
        tables=("model", "evaluate", "grade"),
        reads=("prepare", "admit", "sft", "dpo"),
        checks=(_check_model, _check_grader),
    ),
    Stage(
        name="publish",
        run=publish.run,
        is_wanted=_has("publish"),
        tables=("publish",),
        reads=("prepare", "sft", "grade", "dpo", "evaluate"),
        checks=(partial(_check, "publish"),),
    ),
)
"""Every stage, in order."""


def open_context(
    name: str,
    recipe: Recipe,
    run_dir: RunDir,
    plugins: Plugins,
    done: ItemProgress = lambda *_: None,
) -> StageContext:
    """The context in which the stage with this name runs."""
    return StageContext(
        stage=next(stage for stage in STAGES if stage.name == name),
        recipe=recipe,
        run_dir=run_dir,
        plugins=plugins,
        available=frozenset(stage.name for stage in stages_of(recipe)),
        done=done,
        open_archives=DockerArchives,
    )


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe includes, in order."""
    return [stage for stage in STAGES if stage.is_wanted(recipe)]


def choose(
    stages: Sequence[Stage],
    *,
    first: str | None = None,
    last: str | None = None,
    only: str | None = None,
) -> list[Stage]:
    """The part of the stages that `--from`, `--until` and `--only` select.

    Raises:
        RecipeError: A name is not among the stages, or the selection is empty.
    """
    names = [stage.name for stage in stages]
    for name in filter(None, (first, last, only)):
        if name not in names:
            raise RecipeError(
                f"This recipe has no stage {name!r}.",
                hint=f"Its stages: {', '.join(names)}.",
            )
    start = names.index(only or first or names[0])
    end = names.index(only or last or names[-1])
    if end < start:
        raise RecipeError(f"--until {last} comes before --from {first}.")
    return list(stages[start : end + 1])


def dependents(names: Sequence[str], stages: Sequence[Stage]) -> list[str]:
    """The named stages and everything downstream of them, in order."""
    found: list[str] = []
    for stage in stages:
        if stage.name in names or any(name in found for name in stage.reads):
            found.append(stage.name)
    return found
