"""The command line. Commands import what they need when they are called."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from swebench_trainer import __version__
from swebench_trainer.errors import RecipeError, TrainerError
from swebench_trainer.types import Split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from swebench_trainer.commands.doctor import Report
    from swebench_trainer.commands.preview import Preview
    from swebench_trainer.contracts import Source
    from swebench_trainer.plugins.manager import Plugins
    from swebench_trainer.recipe.load import Draft
    from swebench_trainer.recipe.models import Recipe
    from swebench_trainer.training.models.merge import Drift
    from swebench_trainer.types import Instance, Pair

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
        from swebench_trainer.secrets import without_secrets

        print(_plain(f"error: {without_secrets(str(error))}"), file=sys.stderr)
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
    from swebench_trainer.pipeline import Pipeline
    from swebench_trainer.stages.graph import choose, stages_of

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
    from swebench_trainer.stages.graph import stages_of

    valid, _ = _load(recipe, set_ or [], _plugins())
    print(f"{recipe}: valid. Stages: {', '.join(s.name for s in stages_of(valid))}.")


@app.command()
def preview(
    recipe: RecipeArgument,
    set_: SetOption = None,
    number: Annotated[
        int, typer.Option("--number", "-n", min=0, help="Samples to show.")
    ] = 2,
    instance: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Show this instance; repeatable."),
    ] = None,
    split: Annotated[
        Split | None, typer.Option(help="This split alone; default: both.")
    ] = None,
    lines: Annotated[
        int, typer.Option(min=0, help="Lines of a prompt to show; 0: all.")
    ] = 40,
) -> None:
    """Shows prompts and answers as the model will see them, and what was dropped."""
    from swebench_trainer.commands.preview import look

    loaded, console = _plugins(), _console()
    valid, _ = _load(recipe, set_ or [], loaded)
    loaded.load_installed()  # they may drop instances
    chosen = tuple(instance or ())
    seen = look(loaded, valid, number=number, instances=chosen, split=split)
    _show_samples(console, valid, seen, lines)
    _show_lengths(console, valid, seen)


def _show_samples(console: Console, recipe: Recipe, seen: Preview, lines: int) -> None:
    from rich.text import Text

    from swebench_trainer.reporting.samples import LEGEND, sample

    for example in seen.samples:
        view = example.view
        words = [
            f"{example.split}: prompt {view.prompt_tokens:,} tokens",
            f"context {_plain(example.context)}",
        ]
        if example.learned:
            limit = recipe.prompt.max_tokens
            fate = "kept" if example.length <= limit else "too long, dropped"
            words.append(f"answer with its end {view.answer_tokens:,}")
            words.append(f"together {example.length:,} of {limit:,}: {fate}")
        if view.altered:
            words.append("the tokenizer cannot write this answer byte for byte")
        console.rule(Text(_plain(example.instance_id)), align="left", style="cyan")
        _say(console, ", ".join(words))
        console.print(sample(view, lines), highlight=False)
    if seen.samples:
        console.rule(style="cyan")
        _say(console, LEGEND)


def _show_lengths(console: Console, recipe: Recipe, seen: Preview) -> None:
    from swebench_trainer.reporting.samples import lengths, reasons

    limit = recipe.prompt.max_tokens
    views = [example.view for example in seen.examples]
    prompts = [view.prompt_tokens for view in views]
    console.print(lengths(prompts, [view.answer_tokens for view in views], limit))
    learned = sum(example.learned for example in seen.examples)
    too_long = seen.too_long(limit)
    _say(
        console,
        f"{len(views)} instances, {learned} with an answer to learn, of which "
        f"{len(too_long)} would be dropped for more than max_tokens = {limit:,}",
    )
    for example in too_long[:_TOO_LONG_SHOWN]:
        _say(console, f"  {example.instance_id}: {example.length:,}")
    if rest := len(too_long[_TOO_LONG_SHOWN:]):
        _say(console, f"  and {rest} more")
    if altered := sum(view.altered for view in views):
        _say(console, f"{altered} answers have characters that the tokenizer changes")
    if learned and recipe.sft is None:
        _say(console, "The recipe has no [sft]: nothing is trained on these answers.")
    elif learned and recipe.sft and len(too_long) / learned > recipe.sft.max_dropped:
        _say(
            console,
            f"Training would stop: [sft] max_dropped = {recipe.sft.max_dropped} allows "
            "fewer. Raise [prompt] max_tokens, or choose less context.",
        )
    if seen.dropped:
        console.print(reasons(seen.dropped))
    else:
        _say(console, "Nothing was dropped in preparation.")


_TOO_LONG_SHOWN = 10


@app.command()
def pairs(
    recipe: RecipeArgument,
    set_: SetOption = None,
    runs_dir: Annotated[Path, typer.Option(help="Where run directories are.")] = Path(
        "runs"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count them; write nothing.")
    ] = False,
    number: Annotated[
        int, typer.Option("--number", "-n", min=0, help="Pairs to show.")
    ] = 3,
    lines: Annotated[
        int, typer.Option(min=0, help="Lines of an answer to show; 0: all.")
    ] = 20,
) -> None:
    """Counts the pairs that a recipe makes of its run, and shows some."""
    from swebench_trainer.commands.pairs import rehearse
    from swebench_trainer.reporting.preferences import to_show

    if not dry_run:
        run(recipe, set_, runs_dir, only="pairs")
    loaded, console = _plugins(), _console()
    valid, _ = _load(recipe, set_ or [], loaded)
    loaded.load_installed()  # they may drop pairs
    found = rehearse(loaded, valid, runs_dir)
    _show_pairs(console, found.stats, to_show(found.pairs, number), lines)


def _show_pairs(
    console: Console, stats: dict[str, Any], examples: Sequence[Pair], lines: int
) -> None:
    from rich.text import Text

    from swebench_trainer.reporting.preferences import (
        counts,
        example,
        limiting,
        origins,
        surface,
    )

    for pair in examples:
        console.rule(Text(_plain(pair.instance_id)), align="left", style="cyan")
        for line in origins(pair):
            _say(console, line)
        console.print(example(pair, lines), highlight=False)
    console.print(counts(stats))
    console.print(limiting(stats))
    for line in surface(stats):
        _say(console, line)
    if not stats["graded"]:
        _say(console, "Nobody has graded these rejects: some of them may be right.")


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


@app.command("new-plugin")
def new_plugin(
    name: Annotated[
        str, typer.Argument(help="What recipes will say in `use`, such as my-model.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="backend, pair-strategy, grader, source, prompt-style or publisher."
        ),
    ],
    folder: Annotated[Path, typer.Option("--to", help="Where to write it.")] = Path(),
) -> None:
    """Writes the distribution of a new plugin, with tests that pass."""
    from swebench_trainer.scaffold.write import write_plugin

    loaded = _plugins()
    loaded.load_installed()
    taken = {entry.name for entry in loaded.registry if entry.slug == kind}
    written = write_plugin(name, kind, folder, taken)
    print(f"pip install -e {written} && pytest {written}")


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
        typer.Option(
            "--predictions",
            "-p",
            help="Predictions file, or a submission's folder; repeatable.",
        ),
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
    cache: Annotated[
        bool, typer.Option(help="Keep test runs for, and take them from, other runs.")
    ] = True,
) -> None:
    """Grades predictions files; takes many predictions per instance."""
    import time
    from collections import Counter

    from swebench_trainer.commands.grade import answers, grade_predictions
    from swebench_trainer.events import (
        ItemDone,
        StageFailed,
        StageFinished,
        StageStarted,
    )
    from swebench_trainer.types import Status

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
            cache=cache,
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
    if flagged := sum(v.status is Status.RESOLVED and bool(v.flags) for v in verdicts):
        _say(console, f"{flagged} passes are not believed; see flags in verdicts.jsonl")
    for what, count in answers(out).items():
        _say(console, f"{count} answered by {_ANSWERS[what]}, without a run")
    _say(console, str(out / "report.json"))


@app.command()
def regrade(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A run directory, or what `grade --out` has written.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change.")
    ] = False,
) -> None:
    """Derives verdicts again from kept logs, without running a test."""
    from swebench_trainer.commands.regrade import regrade as regrade_logs

    console = _console()
    summary = regrade_logs(folder, dry_run=dry_run)
    for place, was, now in summary.changes:
        flags = [f"+{flag}" for flag in now.flags if flag not in was.flags]
        flags += [f"-{flag}" for flag in was.flags if flag not in now.flags]
        name = f"{place} {now.instance_id} #{now.sample} ({now.model})".strip(" .")
        _say(console, " ".join([f"{name}: {was.status} → {now.status}", *flags]))
    rest = summary.total - summary.derived
    _say(
        console,
        f"{len(summary.changes)} of {summary.total} verdicts change; {rest} stay "
        "because they have no logs of a finished run",
    )
    if summary.again:
        would = "would be" if dry_run else "will be"
        stages = ", ".join(summary.again)
        _say(console, f"{would} done again by the next `swebench-train run`: {stages}")


@app.command()
def cache(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--prune-older-than",
            metavar="AGE",
            help="Removes what was not used for so long, such as 30d or 12h.",
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Removes what was not used for the longest time, down to 2g or 500m of each kind.",
        ),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Removes all of them.")
    ] = False,
) -> None:
    """Shows what is kept for later, or removes some.

    Clones of repositories, BM25 indexes, generated tasks, image roots and test runs:
    all of it is made again when it is needed.
    """
    from swebench_trainer.commands.cache import show_caches
    from swebench_trainer.store.cache import PruneLimits

    console = _console()
    age = -1 if clear else _amount(older_than, _SECONDS, "--prune-older-than")
    size = _amount(max_size, _BYTES, "--max-size")
    for part in show_caches(PruneLimits(age, size)):
        if isinstance(part, str):
            _say(console, part)
        else:
            console.print(part)


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"k": 10**3, "m": 10**6, "g": 10**9}
_ANSWERS = {"cache": "the cache", "tree": "a patch that leaves the same files"}


def _amount(text: str | None, units: dict[str, int], option: str) -> int | None:
    """A number with its unit, such as `30d`, in the smallest one."""
    if text is None:
        return None
    number, unit = text[:-1], text[-1:].lower()
    if not number.isdecimal() or unit not in units:
        known = ", ".join(f"10{unit}" for unit in units)
        raise RecipeError(f"{option} takes amounts like {known}, not {text!r}.")
    return int(number) * units[unit]


@app.command()
def doctor(
    data: Annotated[
        str | None,
        typer.Option(help="Task repo, file of rows, dataset of the Hub, or alias."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a Hub dataset.")] = "test",
    recipe: Annotated[
        Path | None, typer.Option(help="Takes [data] and [grade] from a recipe.")
    ] = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Instances that gold and no-op are graded on.")
    ] = 3,
    grader: Annotated[
        str, typer.Option(help="Who runs the tests; auto: what there is.")
    ] = "auto",
    stock: Annotated[
        bool, typer.Option(help="Compare with the unmodified harness (slow).")
    ] = False,
    runs_dir: Annotated[Path, typer.Option(help="Where run directories are.")] = Path(
        "runs"
    ),
) -> None:
    """Tells what this machine can grade and what it lacks.

    Exits with 1 if there are problems, with 3 if nothing can grade.
    """
    from swebench_trainer.commands.doctor import Request, default_table, examine

    loaded, console = _plugins(), _console()
    table, instances = None, _instances(loaded, data, split, recipe)
    if recipe is not None:
        table = _load(recipe, [], loaded)[0].grade
    if grader != "auto":
        loaded.tables([("grade", grader)])
        table = default_table(loaded, grader)
    request = Request(instances, table, sample, stock, runs_dir)
    report = examine(loaded, request, lambda finding: _say(console, str(finding)))
    if report.official:
        console.print(_parity(report))
    raise typer.Exit(report.exit_code)


def _instances(
    plugins: Plugins, data: str | None, split: str, recipe: Path | None
) -> Sequence[Instance]:
    """The data that the doctor is to look at; none if it is not told."""
    from swebench_trainer.commands.grade import open_source

    if data is not None:
        return open_source(plugins, data, split).load().instances
    if recipe is None:
        return ()
    source: Source = plugins.registry.create(
        "source", _load(recipe, [], plugins)[0].data
    )
    return source.load().instances


def _parity(report: Report) -> Table:
    """The harness's statuses beside ours."""
    from rich.table import Table

    table = Table("instance", "patch", "ours", "stock", title="parity")
    for name in ("ours, s", "stock, s", "ratio"):
        table.add_column(name, justify="right")
    for mine, theirs in zip(report.ours, report.official, strict=True):
        ratio = theirs.seconds / mine.seconds if mine.seconds else 0.0
        numbers = (f"{mine.seconds:.2f}", f"{theirs.seconds:.2f}", f"{ratio:.1f}")
        table.add_row(
            mine.instance_id, mine.patch, mine.status, theirs.status, *numbers
        )
    return table


@app.command()
def merge(
    trained: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|ADAPTER",
            help="A run directory (its last training), or an adapter's.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Directory to make.", show_default=False),
    ],
    base: Annotated[
        Literal["bf16", "dequantized"] | None,
        typer.Option(
            help="The base's own weights, or its 4-bit weights made full ones. "
            "Default: what it was trained on.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Where the base model is, if it is not where it was trained on.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Merges an adapter into its base, and tells how far the result is from both."""
    from swebench_trainer.training.models.merge import find_trained, merge

    console = _console()
    found = find_trained(trained, model)
    drifts = merge(found, out, base, lambda word: _say(console, word))
    console.print(_drifts(drifts))
    _say(console, f"{out} has the adapter merged into {drifts[-1].way}")


def _drifts(drifts: Sequence[Drift]) -> Table:
    """How far each merged model is from base and adapter as they were trained."""
    from rich.table import Table

    tokens = drifts[-1].tokens
    title = f"logits against base and adapter as trained, {tokens} tokens"
    table = Table("merged into", title=title)
    for name in ("largest", "mean", "KL, nats", "same next token"):
        table.add_column(name, justify="right")
    for drift in drifts:
        numbers = (
            f"{drift.largest:.3g}",
            f"{drift.mean:.3g}",
            f"{drift.divergence:.3g}",
        )
        table.add_row(drift.way, *numbers, f"{drift.agreement:.1%}")
    return table


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
) -> None:
    """Shows a run's comparison of base, SFT and DPO again, and its training curves."""
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
    from swebench_trainer.plugins.manager import Plugins

    return Plugins({"builtin": builtin})


def _console() -> Console:
    from rich.console import Console

    return Console(soft_wrap=not sys.stdout.isatty())


def _say(console: Console, text: str) -> None:
    """Prints a line as it is: brackets in it are no markup."""
    console.print(_plain(text), markup=False, highlight=False)


def _plain(text: str) -> str:
    """Text without what could command a terminal: names and logs are not ours."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _add_console(plugins: Plugins, console: Console) -> None:
    from swebench_trainer.progress import ConsoleObserver

    plugins.add(ConsoleObserver(console), "console", f"swebench-trainer {__version__}")


def _load(path: Path, overrides: list[str], plugins: Plugins) -> tuple[Recipe, Draft]:
    from swebench_trainer.recipe.load import read_draft, validate

    draft = read_draft(path, overrides)
    return validate(draft, plugins.tables(draft.uses())), draft


def _print_report(run_dir: Path, console: Any) -> bool:
    """Prints the curves of a run's trainings, and its evaluation if it has one."""
    from swebench_trainer.reporting.curves import resolved_curves, training_curves
    from swebench_trainer.reporting.tables import comparison
    from swebench_trainer.store.jsonl import read_json, read_rows
    from swebench_trainer.store.rundir import RunDir

    trainings = [RunDir(run_dir).stage(name) for name in ("sft", "dpo")]
    curves = training_curves(
        {stage.name: read_rows(stage.file("metrics.jsonl")) for stage in trainings}
    )
    if curves:
        console.print(curves)
    stages = map(RunDir(run_dir).stage, ("evaluate", "grade"))
    summary, candidates = (read_json(s.file("summary.json")) for s in stages)
    leakage = read_json(RunDir(run_dir).stage("prepare").file("leakage.json"))
    if summary:
        if resolved := resolved_curves(summary.get("curve", {})):
            console.print(resolved)
        console.print(comparison(summary, candidates, leakage))
    return bool(summary)
