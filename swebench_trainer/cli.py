"""The command line. Commands import what they need when they are called."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swebench_trainer import __version__
from swebench_trainer.errors import RecipeError, TrainerError

if TYPE_CHECKING:
    from rich.console import Console

    from swebench_trainer.plugins import Plugins
    from swebench_trainer.recipe.load import Draft
    from swebench_trainer.recipe.models import Recipe

app = typer.Typer(
    name="swebench-train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Train open code models on SWE-bench. `swebench-train RECIPE.toml` does a "
        "whole run; called again, it goes on where it stopped."
    ),
)

INTERRUPTED = 130
"""Exit code after Ctrl-C and SIGTERM, as shells have it."""

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe (TOML).", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="TABLE.KEY=VALUE", help="Overrides a key; repeatable."
    ),
]


def run_command_line(arguments: list[str]) -> int:
    """Runs a command; `RECIPE.toml` alone means `run RECIPE.toml`.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage or recipe, 3 missing
        prerequisite, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments and arguments[0].endswith(".toml"):
        arguments = ["run", *arguments]
    try:
        code = app(arguments, standalone_mode=False) or 0
    except TrainerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}.", file=sys.stderr)
        return TrainerError.exit_code
    except Exception as error:  # typer keeps its usage errors private; others go on
        return _usage_error(error)
    if code == INTERRUPTED:
        print(f"\nInterrupted. To go on: {_command_again(arguments)}", file=sys.stderr)
    return int(code)


def _command_again(arguments: list[str]) -> str:
    """The command that goes on: the same one, which must not redo anything again."""
    kept: list[str] = []
    for number, argument in enumerate(arguments):
        is_redo = argument.partition("=")[0] == "--redo"
        follows_redo = number > 0 and arguments[number - 1] == "--redo"
        if not (is_redo or follows_redo):
            kept.append(argument)
    return shlex.join(["swebench-train", *kept])


def _usage_error(error: Exception) -> int:
    """Shows an error of the command line itself; raises any other."""
    show = getattr(error, "show", None)
    if show is None or not hasattr(error, "exit_code"):
        raise error
    show()
    return int(error.exit_code)


@app.command()
def run(
    recipe: RecipeArgument,
    set_: SetOption = None,
    runs_dir: Annotated[Path, typer.Option(help="Where run directories are.")] = Path(
        "runs"
    ),
    name: Annotated[
        str | None, typer.Option(help="Name of the run instead of the recipe's.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="First stage.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Last stage.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="STAGE", help="This stage alone.")
    ] = None,
    redo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE",
            help="Does a stage and what depends on it anew; old files are kept aside.",
        ),
    ] = None,
) -> None:
    """Runs a recipe, or goes on with it."""
    from swebench_trainer.pipeline import Pipeline, choose, stages_of

    overrides = [*(set_ or []), *([f"name={name!r}"] if name is not None else [])]
    plugins, console = _plugins(), _console()
    valid, draft = _load(recipe, overrides, plugins)
    plugins.load_installed()
    _add_console(plugins, console)
    if only and (from_ or until):
        raise RecipeError("--only goes without --from and --until.")
    chosen = choose(stages_of(valid), first=from_, last=until, only=only)
    pipeline = Pipeline(valid, draft, runs_dir, plugins)
    pipeline.run(chosen, redo or [])
    _print_report(pipeline.run_dir.path, console)
    for label, value in plugins.report_rows(str(pipeline.run_dir.path)).items():
        _say(console, f"{label}: {value}")
    for failure, count in plugins.failures.items():
        _say(console, f"{failure} ({count} times; see the log of this attempt)")


@app.command()
def check(recipe: RecipeArgument, set_: SetOption = None) -> None:
    """Checks a recipe without running anything; shows every error at once."""
    from swebench_trainer.pipeline import stages_of

    valid, _ = _load(recipe, set_ or [], _plugins())
    print(f"{recipe}: valid. Stages: {', '.join(s.name for s in stages_of(valid))}.")


@app.command()
def schema() -> None:
    """Prints the JSON schema of a recipe, for editors."""
    import json

    from swebench_trainer.recipe.schema import json_schema

    plugins = _plugins()
    plugins.load_installed()
    print(json.dumps(json_schema(plugins.tables()), indent=2))


@app.command()
def new(
    name: Annotated[
        str | None,
        typer.Argument(help="A shipped recipe; without it they are listed."),
    ] = None,
    folder: Annotated[Path, typer.Option("--to", help="Where to copy it.")] = Path(),
) -> None:
    """Copies a shipped recipe, with its data, to start from."""
    from swebench_trainer.recipe.shipped import copy_recipe, shipped_recipes

    if name is None:
        for recipe, summary in shipped_recipes().items():
            print(f"{recipe:<28} {summary}")
        return
    print(f"swebench-train {copy_recipe(name, folder)}")


@app.command()
def plugins() -> None:
    """Lists every plugin with its origin and version."""
    from rich.table import Table
    from rich.text import Text

    loaded, console = _plugins(), _console()
    loaded.load_installed()
    table = Table("kind", "name", "from", "what")
    for entry in loaded.registry:
        row = (entry.kind, entry.name, entry.origin, entry.summary)
        table.add_row(*map(Text, row))
    console.print(table)
    for name, origin in loaded.origins.items():
        if not any(entry.origin == origin for entry in loaded.registry):
            _say(console, f"observer {name} from {origin}")
    for broken in loaded.broken:
        _say(console, f"{broken.name} ({broken.origin}) is broken: {broken.error}")


@app.command()
def grade(
    data: Annotated[
        str,
        typer.Option(help="Task repo, file of rows, dataset of the Hub, or alias."),
    ],
    predictions: Annotated[
        list[Path],
        typer.Option("--predictions", "-p", help="Predictions file; repeatable."),
    ],
    out: Annotated[Path, typer.Option(help="Directory for the results.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="More of them.")
    ] = None,
    grader: Annotated[str, typer.Option(help="Who runs the tests.")] = "docker",
    workers: Annotated[
        int, typer.Option(min=0, help="At once; 0: three quarters of the cores.")
    ] = 0,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds per candidate.")] = 1800,
    split: Annotated[str, typer.Option(help="Split of a Hub dataset.")] = "test",
) -> None:
    """Grades predictions files; takes many predictions per instance."""
    import time
    from collections import Counter

    from swebench_trainer.events import (
        ItemDone,
        StageFailed,
        StageFinished,
        StageStarted,
    )
    from swebench_trainer.standalone import grade_predictions

    loaded, console = _plugins(), _console()
    loaded.tables([("grade", grader)])
    _add_console(loaded, console)
    start = time.monotonic()
    loaded.notify("stage_started", StageStarted("grade", out.exists()))
    try:
        verdicts = grade_predictions(
            loaded,
            data=data,
            split=split,
            predictions=[*predictions, *(more or [])],
            out=out,
            grader=grader,
            workers=workers,
            timeout=timeout,
            done=lambda item, done, total, word: loaded.notify(
                "item_done", ItemDone("grade", item, done, total, word)
            ),
        )
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        loaded.notify("stage_failed", StageFailed("grade", str(error), stopped))
        raise
    counts = dict(Counter(v.status.value for v in verdicts).most_common())
    seconds = time.monotonic() - start
    loaded.notify("stage_finished", StageFinished("grade", seconds, counts))
    _say(console, str(out / "report.json"))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
) -> None:
    """Shows a run's comparison of base, SFT and DPO again."""
    if not run.joinpath("run.json").exists():
        raise TrainerError(
            f"{run} is no run directory.", hint="They are called runs/NAME."
        )
    if not _print_report(run, _console()):
        raise TrainerError(f"The evaluation of {run} is not done.")


def _version(asked: bool) -> None:
    if asked:
        print(f"swebench-train {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    pass


def _plugins() -> Plugins:
    from swebench_trainer import builtin
    from swebench_trainer.plugins import Plugins

    return Plugins({"builtin": builtin})


def _console() -> Console:
    from rich.console import Console

    return Console(soft_wrap=not sys.stdout.isatty())


def _say(console: Console, text: str) -> None:
    """Prints a line as it is: brackets in it are no markup."""
    console.print(text, markup=False, highlight=False)


def _add_console(plugins: Plugins, console: Console) -> None:
    from swebench_trainer.progress import ConsoleObserver

    plugins.add(ConsoleObserver(console), "console", f"swebench-trainer {__version__}")


def _load(path: Path, overrides: list[str], plugins: Plugins) -> tuple[Recipe, Draft]:
    from swebench_trainer.recipe.load import read_draft, validate

    draft = read_draft(path, overrides)
    return validate(draft, plugins.tables(draft.uses())), draft


def _print_report(run_dir: Path, console: Any) -> bool:
    """Prints the evaluation of a run, if it has one."""
    from swebench_trainer.reporting.tables import comparison
    from swebench_trainer.store.jsonl import read_json
    from swebench_trainer.store.rundir import RunDir

    summary = read_json(RunDir(run_dir).stage("evaluate").file("summary.json"))
    if summary:
        console.print(comparison(summary))
    return bool(summary)
