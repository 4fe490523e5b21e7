"""Declares the commands of `swebench-train` and their options.

Each command has its module in `commands/`, imported when the command runs so that
`--help` stays fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from swebench_trainer import __version__
from swebench_trainer.commands.options import (
    DATA,
    RUNS,
    DigestsOption,
    DryRunOption,
    GradedArgument,
    HubSplitOption,
    ImagesAction,
    InstancesOption,
    MaxSizeOption,
    MemoryOption,
    OlderThanOption,
    PredictionsOption,
    RecipeArgument,
    RunsDirOption,
    SampleOption,
    ScriptsOption,
    SetOption,
    TimeoutOption,
    WorkersOption,
)
from swebench_trainer.types import Split

app = typer.Typer(
    name="swebench-train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Train open code models on SWE-bench. `swebench-train RECIPE.toml` runs all "
        "stages of a recipe; run it again to resume."
    ),
)


@app.command()
def run(
    recipe: RecipeArgument,
    set_: SetOption = None,
    runs_dir: RunsDirOption = RUNS,
    name: Annotated[
        str | None, Option(help="Name of the run; default: the recipe's name.")
    ] = None,
    from_: Annotated[
        str | None, Option("--from", metavar="STAGE", help="First stage to run.")
    ] = None,
    until: Annotated[
        str | None, Option(metavar="STAGE", help="Last stage to run.")
    ] = None,
    only: Annotated[
        str | None, Option(metavar="STAGE", help="Run only this stage.")
    ] = None,
    redo: Annotated[
        list[str] | None,
        Option(
            metavar="STAGE",
            help="Rerun a stage and everything downstream; the old files are moved "
            "aside. Repeatable.",
        ),
    ] = None,
) -> None:
    """Run a recipe, or resume it."""
    from swebench_trainer.commands import run as command

    overrides = [*(set_ or []), *([f"name={name!r}"] if name is not None else [])]
    stages = command.StageChoice(from_, until, only, tuple(redo or ()))
    command.execute(recipe, overrides, runs_dir, stages)


@app.command()
def check(recipe: RecipeArgument, set_: SetOption = None) -> None:
    """Validate a recipe without running it, and show every error."""
    from swebench_trainer.commands import recipes

    recipes.check(recipe, set_ or [])


@app.command()
def preview(
    recipe: RecipeArgument,
    set_: SetOption = None,
    number: Annotated[
        int, Option("--number", "-n", min=0, help="Number of samples to show.")
    ] = 2,
    instance: InstancesOption = None,
    split: Annotated[
        Split | None, Option(help="Show only this split; default: both.")
    ] = None,
    lines: Annotated[int, Option(min=0, help="Lines per prompt to show; 0: all.")] = 40,
) -> None:
    """Show prompts and answers as the model will see them.

    Also shows a histogram of their lengths, and counts of dropped instances.
    """
    from swebench_trainer.commands import preview as command

    choice = command.SampleChoice(number, tuple(instance or ()), split)
    command.execute(recipe, set_ or [], choice, lines)


@app.command()
def pairs(
    recipe: RecipeArgument,
    set_: SetOption = None,
    runs_dir: RunsDirOption = RUNS,
    dry_run: DryRunOption = False,
    number: Annotated[
        int, Option("--number", "-n", min=0, help="Number of pairs to show.")
    ] = 3,
    lines: Annotated[int, Option(min=0, help="Lines per answer to show; 0: all.")] = 20,
) -> None:
    """Build a run's preference pairs, count them, and show some."""
    from swebench_trainer.commands import pairs as command

    command.execute(
        recipe, set_ or [], runs_dir, dry_run=dry_run, number=number, lines=lines
    )


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from swebench_trainer.commands import recipes

    recipes.print_schema()


@app.command()
def new(
    name: Annotated[
        str | None,
        Argument(metavar="NAME", help="Shipped recipe; omit it to list them."),
    ] = None,
    folder: Annotated[Path, Option("--to", help="Directory to copy it to.")] = Path(),
) -> None:
    """Copy a shipped recipe and its data as a starting point."""
    from swebench_trainer.commands import recipes

    recipes.new(name, folder)


@app.command("new-plugin")
def new_plugin(
    name: Annotated[
        str,
        Argument(metavar="NAME", help="Name for `use` in recipes, such as my-model."),
    ],
    kind: Annotated[
        str,
        Option(
            help="backend, pair-strategy, grader, source, prompt-style or publisher."
        ),
    ],
    folder: Annotated[Path, Option("--to", help="Directory to write it to.")] = Path(),
) -> None:
    """Create an installable plugin with passing tests."""
    from swebench_trainer.commands import plugins as command

    command.new(name, kind, folder)


@app.command()
def plugins() -> None:
    """List all plugins with origin and version."""
    from swebench_trainer.commands import plugins as command

    command.list_plugins()


@app.command()
def grade(
    data: Annotated[str, DATA],
    predictions: PredictionsOption,
    out: Annotated[Path, Option(help="Output directory.")],
    more: Annotated[
        list[Path] | None, Argument(metavar="FILE", help="More predictions files.")
    ] = None,
    grader: Annotated[str, Option(help="Grader to use.")] = "docker",
    workers: WorkersOption = 0,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
    split: HubSplitOption = "test",
    scripts: ScriptsOption = None,
    digests: DigestsOption = None,
    cache: Annotated[
        bool, Option(help="Reuse cached test runs, and cache new ones.")
    ] = True,
    gold_runs: Annotated[
        bool,
        Option("--gold-runs", help="Run gold and counter-runs to tell what to trust."),
    ] = False,
) -> None:
    """Grade one or more predictions files."""
    from swebench_trainer.commands import grade as command
    from swebench_trainer.commands.inputs import SourceOptions

    source = SourceOptions(data, split, scripts, digests)
    files = [*predictions, *(more or [])]
    options = command.GradeOptions(
        source, files, out, grader, workers, timeout, memory, cache, gold_runs
    )
    command.execute(options)


@app.command()
def regrade(
    folder: GradedArgument,
    dry_run: DryRunOption = False,
) -> None:
    """Recompute verdicts from stored logs, without running tests."""
    from swebench_trainer.commands import regrade as command

    command.execute(folder, dry_run=dry_run)


@app.command()
def cache(
    older_than: OlderThanOption = None,
    max_size: MaxSizeOption = None,
    clear: Annotated[bool, Option("--clear", help="Remove all entries.")] = False,
) -> None:
    """Show or prune the local caches.

    They hold clones of repositories, BM25 indexes, generated tasks, image roots, and
    test runs. Everything in them is rebuilt when needed.
    """
    from swebench_trainer.commands import cache as command

    command.execute(older_than, max_size, clear=clear)


@app.command()
def images(
    action: Annotated[ImagesAction, Argument(help="What to do.", show_default=False)],
    recipe: RecipeArgument,
    set_: SetOption = None,
) -> None:
    """Check the images of a recipe, or pull, build, or prune them."""
    from swebench_trainer.commands import images as command

    command.execute(action, recipe, set_ or [])


@app.command()
def doctor(
    data: Annotated[str | None, DATA] = None,
    split: HubSplitOption = "test",
    recipe: Annotated[
        Path | None, Option(help="Use [data] and [grade] of this recipe.")
    ] = None,
    sample: SampleOption = 3,
    grader: Annotated[
        str, Option(help="Grader to use; auto: one that works here.")
    ] = "auto",
    stock: Annotated[
        bool, Option(help="Compare with the unmodified harness (slow).")
    ] = False,
    runs_dir: RunsDirOption = RUNS,
) -> None:
    """Check whether this machine can grade.

    The exit code is 1 if there are problems, and 3 if no grader works.
    """
    from swebench_trainer.commands import doctor as command

    source = command.DataOptions(data, split, recipe)
    raise typer.Exit(
        command.execute(
            source, grader=grader, sample=sample, stock=stock, runs_dir=runs_dir
        )
    )


@app.command()
def merge(
    trained: Annotated[
        Path,
        Argument(
            metavar="RUN|ADAPTER",
            help="Run directory (uses its last training), or adapter directory.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, Argument(metavar="OUT", help="Directory to create.", show_default=False)
    ],
    base: Annotated[
        Literal["bf16", "dequantized"] | None,
        Option(
            help="Base weights to merge into: the original ones, or the 4-bit ones "
            "dequantized. Default: the weights used in training.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        Option(help="Base model, if it has moved since training.", show_default=False),
    ] = None,
) -> None:
    """Merge an adapter into its base model, and measure the drift."""
    from swebench_trainer.commands import merge as command

    command.execute(trained, out, base, model)


@app.command()
def report(
    run: Annotated[
        Path, Argument(metavar="RUN", help="Run directory.", show_default=False)
    ],
) -> None:
    """Show the training curves and the evaluation of a run."""
    from swebench_trainer.commands import run as command

    command.report(run)


def _version(requested: bool) -> None:
    if requested:
        print(f"swebench-train {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass
