"""What a recipe makes of its data, as its model will see it; nothing is trained.

Data and prompts are prepared by the stage itself, in a directory that is gone
afterwards. The run's own directory is neither read nor written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swebench_trainer.contracts import TokenView
from swebench_trainer.errors import (
    DataError,
    PluginError,
    RecipeError,
    StageError,
)
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.stages import prepare
from swebench_trainer.stages.graph import open_context
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import read_rows
from swebench_trainer.store.rundir import RunDir
from swebench_trainer.types import Instance, SftRow, Split


@dataclass(frozen=True)
class Example:
    """One prepared instance in tokens.

    Attributes:
        context: What its prompt shows; see `PromptStyle`.
        learned: Whether it has an answer that SFT would learn.
        view: With its texts if it was asked for, else with its lengths alone.
    """

    instance_id: str
    split: Split
    context: str
    learned: bool
    view: TokenView

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return self.view.prompt_tokens + self.view.answer_tokens


@dataclass(frozen=True)
class Preview:
    """What a recipe would train on and ask.

    Attributes:
        examples: Every prepared instance of the splits that were asked for.
        samples: Those to be shown, with their texts.
        dropped: `dropped.jsonl` of the stage, of both splits.
    """

    examples: tuple[Example, ...]
    samples: tuple[Example, ...]
    dropped: tuple[dict[str, str], ...]

    def too_long(self, max_tokens: int) -> list[Example]:
        """Examples that SFT would leave out for their length."""
        return [e for e in self.examples if e.learned and e.length > max_tokens]


def look(
    plugins: Plugins,
    recipe: Recipe,
    *,
    number: int,
    instances: Sequence[str] = (),
    split: Split | None = None,
) -> Preview:
    """Prepares a recipe's data in memory and encodes it with the recipe's tokenizer.

    Args:
        plugins: With what the recipe names.
        recipe: A valid one.
        number: How many samples to show, drawn with the recipe's seed.
        instances: Show these instead.
        split: This split alone; default: both.

    Raises:
        RecipeError: There is no model, or an instance of that name.
        PluginError: The backend does not show its tokens.
        PrerequisiteError: The model's tokenizer is not on this machine.
        DataError: The data cannot be used.
        StageError: Nothing is left after preparation.
    """
    view = _open_view(plugins, recipe)
    with tempfile.TemporaryDirectory(prefix="swebench-train-preview-") as folder:
        prepared, dropped = _prepare(plugins, recipe, Path(folder))
    chosen = [row for row in prepared if split in (None, row.split)]
    if not chosen:
        raise StageError(f"No instance is in the split {split!r}.")
    names = {row.instance_id for row in chosen}
    for name in instances:
        if name not in names:
            raise RecipeError(f"{name}: {_why_missing(name, dropped)}")
    # By digest, so that the draw stays when instances come and go.
    drawn = sorted(names, key=lambda name: digest([recipe.seed, name]))[:number]
    wanted = list(dict.fromkeys(instances)) or drawn

    examples = []
    shown: dict[str, Example] = {}
    for row in chosen:
        example = Example(
            row.instance_id,
            row.split,
            row.context,
            learned=row.answer is not None,
            view=view(row.prompt, row.answer),
        )
        if row.instance_id in wanted:
            shown[row.instance_id] = example
        # The texts of all the others would fill the memory.
        examples.append(replace(example, view=replace(example.view, parts=())))
    samples = tuple(shown[name] for name in wanted)
    return Preview(tuple(examples), samples, tuple(dropped))


@dataclass(frozen=True)
class _Prepared:
    instance_id: str
    split: Split
    context: str
    prompt: str
    answer: str | None


def _open_view(
    plugins: Plugins, recipe: Recipe
) -> Callable[[str, str | None], TokenView]:
    if recipe.model is None:
        raise RecipeError(
            "This recipe has no [model], so there is no tokenizer to preview with.",
            hint='Name one: --set model.name="Qwen/Qwen2.5-Coder-7B-Instruct"',
        )
    backend = plugins.registry.create("backend", recipe.model)
    if not hasattr(backend, "open_view"):
        raise PluginError(
            f"The backend {recipe.model.use!r} does not show what it makes of a text.",
            hint="Its author can offer `open_view`; see TokenViewer in swebench_trainer.contracts.",
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


def _prepare(
    plugins: Plugins, recipe: Recipe, folder: Path
) -> tuple[list[_Prepared], list[dict[str, str]]]:
    """What the stage makes of the data, and the rows that it drops."""
    run = RunDir(folder)
    stage = run.stage("prepare")
    stage.path.mkdir(parents=True)
    context = open_context("prepare", recipe, run, plugins)
    try:
        prepare.run(context)
    except (DataError, StageError) as error:
        if str(folder) not in error.hint:
            raise
        # The files that it names are about to vanish.
        hint = error.hint.replace(f"{run.path}/", "")
        raise type(error)(
            error.message,
            hint=f"{hint} To have that file: swebench-train run RECIPE --until prepare",
        ) from error
    prompts = {
        row["instance_id"]: row for row in read_rows(stage.file("prompts.jsonl"))
    }
    learned = context.read("prepare", "sft.jsonl", SftRow)
    answers = {row.instance_id: row.completion for row in learned}
    prepared = [
        _Prepared(
            instance.instance_id,
            instance.split,
            prompts[instance.instance_id]["context"],
            prompts[instance.instance_id]["prompt"],
            answers.get(instance.instance_id),
        )
        for instance in context.read("prepare", "instances.jsonl", Instance)
    ]
    return prepared, list(read_rows(stage.file("dropped.jsonl")))


def _why_missing(name: str, dropped: Sequence[dict[str, str]]) -> str:
    reasons = (row["reason"] for row in dropped if row["instance_id"] == name)
    reason = next(reasons, None)
    return f"dropped: {reason}." if reason else "there is no such instance to be shown."
