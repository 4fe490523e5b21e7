"""`swebench-train preview`: prompts and answers as the model will see them.

The prepare stage itself prepares data and prompts, in a temporary directory. The run's
own directory is neither read nor written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swebench_trainer.commands.inputs import open_recipe
from swebench_trainer.contracts import TokenView
from swebench_trainer.errors import DataError, PluginError, RecipeError, StageError
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.reporting.console import open_console
from swebench_trainer.reporting.preview import Example, Preview, print_preview
from swebench_trainer.stages import prepare
from swebench_trainer.stages.context import StageContext
from swebench_trainer.stages.graph import open_context
from swebench_trainer.store.draw import draw_key
from swebench_trainer.store.jsonl import read_rows
from swebench_trainer.store.rundir import RunDir
from swebench_trainer.types import Instance, SftRow, Split


@dataclass(frozen=True)
class SampleChoice:
    """The samples to show.

    Attributes:
        number: How many to draw with the recipe's seed.
        instances: Show these instead.
        split: Limit samples and figures to this split; default: both.
    """

    number: int
    instances: Sequence[str] = ()
    split: Split | None = None


def execute(
    recipe: Path, overrides: list[str], choice: SampleChoice, lines: int
) -> None:
    """Prints samples, lengths, and dropped rows of a recipe.

    Args:
        recipe: The recipe's file.
        overrides: `table.key=value`, as given to `--set`.
        choice: The samples to show.
        lines: Maximum number of lines per prompt; 0 prints all.
    """
    plugins, valid, _ = open_recipe(recipe, overrides)
    preview = prepare_preview(plugins, valid, choice)
    print_preview(open_console(), valid, preview, lines)


def prepare_preview(plugins: Plugins, recipe: Recipe, choice: SampleChoice) -> Preview:
    """Prepares a recipe's data and encodes it with the recipe's tokenizer.

    Args:
        plugins: Plugins that the recipe names.
        recipe: A validated recipe.
        choice: The samples to show.

    Raises:
        RecipeError: The recipe has no model, or a chosen instance does not exist.
        PluginError: The backend cannot show its tokens.
        PrerequisiteError: The model's tokenizer is not on this machine.
        DataError: The data cannot be used.
        StageError: No instances are left after preparation.
    """
    view = _open_view(plugins, recipe)
    with tempfile.TemporaryDirectory(prefix="swebench-train-preview-") as folder:
        prepared = _prepare(plugins, recipe, Path(folder))
        file = prepared.dir.file
        instances = prepared.read("prepare", "instances.jsonl", Instance)
        prompts = {r["instance_id"]: r for r in read_rows(file("prompts.jsonl"))}
        taught = prepared.read("prepare", "sft.jsonl", SftRow)
        dropped = read_rows(file("dropped.jsonl"))
    answers = {row.instance_id: row.completion for row in taught}
    chosen = [i for i in instances if choice.split in (None, i.split)]
    if not chosen:
        raise StageError(
            f"The split {choice.split!r} has no instances.",
            hint="Preview the other split, or change [data] holdout.",
        )
    names = {instance.instance_id for instance in chosen}
    for name in choice.instances:
        if name not in names:
            raise RecipeError(f"{name}: {_why_missing(name, dropped)}")
    # By digest, so that adding or removing instances does not change the draw.
    drawn = sorted(names, key=lambda name: draw_key(recipe.seed, name))[: choice.number]
    wanted = list(dict.fromkeys(choice.instances)) or drawn

    examples = []
    shown: dict[str, Example] = {}
    for instance in chosen:
        name = instance.instance_id
        answer, prompt = answers.get(name), prompts[name]
        tokens, learned = view(prompt["prompt"], answer), answer is not None
        example = Example(name, instance.split, prompt["context"], learned, tokens)
        if name in wanted:
            shown[name] = example
        # Texts of every example would not fit into memory.
        examples.append(replace(example, view=replace(example.view, parts=())))
    samples = tuple(shown[name] for name in wanted)
    return Preview(tuple(examples), samples, tuple(dropped))


def _open_view(
    plugins: Plugins, recipe: Recipe
) -> Callable[[str, str | None], TokenView]:
    if recipe.model is None:
        raise RecipeError(
            "This recipe has no [model], so preview has no tokenizer.",
            hint='Name one: --set model.name="Qwen/Qwen2.5-Coder-7B-Instruct"',
        )
    backend = plugins.registry.create(recipe.model)
    if not hasattr(backend, "open_view"):
        raise PluginError(
            f"The backend {recipe.model.use!r} cannot show its tokens.",
            hint="Its author can implement `open_view`; see TokenViewer in "
            "swebench_trainer.contracts.",
        )
    opened: Callable[[str, str | None], TokenView] = backend.open_view()
    if recipe.sft is None or not recipe.sft.prompt_loss:
        return opened

    def with_prompt(prompt: str, answer: str | None) -> TokenView:
        view = opened(prompt, answer)
        if answer is None:
            return view
        parts = (replace(part, trained=True) for part in view.parts)
        return replace(view, parts=tuple(parts))

    return with_prompt


def _prepare(plugins: Plugins, recipe: Recipe, folder: Path) -> StageContext:
    """Runs the prepare stage in a temporary directory; its files are the result."""
    context = open_context("prepare", recipe, RunDir(folder), plugins)
    context.dir.path.mkdir(parents=True)
    try:
        prepare.run(context)
    except (DataError, StageError) as error:
        if error.details is None:
            raise
        # The files that the hint names are temporary.
        hint = error.hint.replace(f"{folder}/", "")
        raise type(error)(
            error.message,
            hint=f"{hint} To keep that file: swebench-train run RECIPE --until prepare",
        ) from error
    return context


def _why_missing(name: str, dropped: Sequence[dict[str, str]]) -> str:
    reasons = (row["reason"] for row in dropped if row["instance_id"] == name)
    if reason := next(reasons, None):
        return f"dropped: {reason}."
    return "no such instance in the data or in this --split."
