"""`swebench-train grade`: predictions files graded outside a recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from swebench_trainer.commands.inputs import (
    SourceOptions,
    load_plugins,
    open_source,
    show_progress,
)
from swebench_trainer.contracts import GoldRun, Grader, ItemProgress
from swebench_trainer.errors import DataError, RecipeError
from swebench_trainer.grading.counter.runs import COUNTER, CounterRuns, GradingContext
from swebench_trainer.grading.counter.secret import ranking
from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.grading.official import final_report, trusted_part
from swebench_trainer.grading.retest import of_first_run
from swebench_trainer.pipeline import run_observed
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.reporting.console import open_console, print_line
from swebench_trainer.reporting.run_report import trust_label
from swebench_trainer.reporting.summaries import verdict_counts
from swebench_trainer.stages.context import GOLD, StageSummary, gold_runs
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import each_row, write_json, write_rows
from swebench_trainer.store.locks import owned
from swebench_trainer.store.predictions import read_predictions
from swebench_trainer.store.rundir import FORMAT, StageDir
from swebench_trainer.types import (
    Candidate,
    Instance,
    Status,
    Verdict,
    as_row,
    from_row,
)

INSTANCES = "instances.jsonl"
"""Name of the file with the graded data, in the output directory."""

LOCK = "lock.json"
"""Name of the lock of an output directory; a failed check may leave nothing else."""

DEFAULTS: Mapping[str, int | str] = {"timeout": 1800}
PRO_DEFAULTS: Mapping[str, int | str] = {"timeout": 3600, "memory": "16g"}
"""Limits of SWE-bench Pro, whose own evaluation allows an hour and 30 GB."""

ANSWERED_BY = {"cache": "the cache", "tree": "a patch that leaves the same files"}


@dataclass(frozen=True)
class GradeOptions:
    """What to grade, and how.

    Attributes:
        source: The data.
        predictions: Predictions files in any format of the harness.
        out: Output directory; grading resumes there.
        grader: Name of a grader.
        workers: Number of concurrent candidates; 0 means three quarters of the cores.
        timeout: Seconds per candidate; `None` means `DEFAULTS` or `PRO_DEFAULTS`.
        memory: Memory limit of a candidate, such as `8g`; `None` means the same.
        cache: Whether to share test runs with other gradings.
        gold_runs: Whether to run gold for comparison, and passes on changed tests.
    """

    source: SourceOptions
    predictions: Sequence[Path]
    out: Path
    grader: str
    workers: int = 0
    timeout: int | None = None
    memory: str | None = None
    cache: bool = True
    gold_runs: bool = False


def execute(options: GradeOptions) -> None:
    """Grades predictions files, shows progress, and prints the path of the report.

    Args:
        options: What to grade, and how.
    """
    plugins, console, out = load_plugins(), open_console(), options.out
    plugins.tables([("grade", options.grader)])
    show_progress(plugins, console)
    verdicts: list[Verdict] = []

    def run(done: ItemProgress) -> StageSummary:
        verdicts.extend(grade_predictions(plugins, options, done))
        return dict(Counter(v.status.value for v in verdicts).most_common())

    run_observed(plugins, "grade", run, resumed=out.exists())
    if flagged := sum(v.status is Status.RESOLVED and bool(v.flags) for v in verdicts):
        text = f"{flagged} passes are suspicious; see flags in verdicts.jsonl"
        print_line(console, text)
    for line in _trust_lines(options, verdicts):
        print_line(console, line)
    if repeated := repeated_predictions(verdicts):
        print_line(
            console,
            f"{len(repeated)} instances have several predictions of one model, for "
            f"example {repeated[0]}; all are graded, and the best one counts",
        )
    for name, count in answered_without_run(out).items():
        print_line(console, f"{count} answered by {ANSWERED_BY[name]}, without a run")
    print_line(console, str(out / "report.json"))


def grade_predictions(
    plugins: Plugins, options: GradeOptions, progress: ItemProgress
) -> list[Verdict]:
    """Grades predictions files, which may hold several predictions per instance.

    Writes `verdicts.jsonl` (a row per prediction, in the order of the files), the
    harness's logs, the graded data (for `regrade`), and `report.json` in the harness's
    schema, where the best prediction of an instance counts.

    Args:
        plugins: Where the source and the grader are looked up.
        options: What to grade, and how.
        progress: Called after each verdict.

    Raises:
        DataError: Data or predictions cannot be used, or the output directory holds
            verdicts of other data, other predictions, or another grader.
        PrerequisiteError: The grader does not work on this machine.
        StageError: Infrastructure errors left predictions without a verdict; all other
            verdicts are written.
    """
    source = open_source(plugins, options.source)
    instances = {i.instance_id: i for i in source.load().instances}
    candidates = _candidates(options.predictions, instances)
    named = [instances[i] for i in dict.fromkeys(c.instance_id for c in candidates)]
    if ungradable := [i for i in named if not i.gradable]:
        raise DataError(
            f"{len(ungradable)} of {len(named)} instances cannot be graded, for example "
            f"{ungradable[0].instance_id}: {ungradable[0].ungradable}.",
            hint="Grading needs eval_script, log_parser and FAIL_TO_PASS. Rows of SWE-bench "
            "Pro get them from its evaluation repository: add --scripts. Other rows "
            "without them can be trained on, but not graded.",
        )
    out = options.out
    table = grade_table(plugins, options, named)
    settings = {
        "data": source.digest(),
        "grader": table.use,
        "timeout": table.timeout,
        "predictions": digest([[c.model, c.instance_id, c.patch] for c in candidates]),
        "gold_runs": options.gold_runs,
    }
    folder = _claim_directory(out, settings)
    with owned(out / LOCK):
        engine = plugins.registry.create(table)
        try:
            engine.check(named)
            folder.begin({**settings, "format": FORMAT})
            write_rows(out / INSTANCES, map(as_row, instances.values()))
            if options.gold_runs:
                _run_gold(out, named, engine, progress)
            gold = passing_gold_runs(out)
            ledger = Ledger(out, named, run_id="grade")
            found = ledger.grade(engine, candidates, progress, gold=gold)
            verdicts = [of_first_run(verdict) for verdict in found]
            write_report(out, list(instances.values()), verdicts)
            require_decided(verdicts)
            if options.gold_runs:
                context = GradingContext(engine, named, gold, progress, None, "counter")
                runs = CounterRuns(out / COUNTER, context, ranking())
                verdicts = runs.check(candidates, verdicts)
                write_rows(ledger.path, map(as_row, verdicts))
                write_report(out, list(instances.values()), verdicts)
        finally:
            engine.close()
    return verdicts


def _run_gold(
    out: Path, instances: Sequence[Instance], engine: Grader, progress: ItemProgress
) -> None:
    """Run gold of each instance once."""
    candidates = [Candidate(i.instance_id, 0, GOLD, "", i.patch) for i in instances]
    ledger = Ledger(out / GOLD, instances, run_id=GOLD)
    verdicts = ledger.grade(engine, candidates, progress, once_per_patch=False)
    require_decided(verdicts, max_faults=0)


def passing_gold_runs(out: Path) -> Callable[[Instance], GoldRun | None]:
    """Look up the gold run of an instance; `None` if it failed or gold did not run."""
    rows = each_row(out / GOLD / "verdicts.jsonl")
    verdicts = (from_row(Verdict, row) for row in rows)
    passed = {v.instance_id for v in verdicts if v.status is Status.RESOLVED}
    find = gold_runs(StageDir(out / GOLD))
    return lambda i: find(i) if i.instance_id in passed else None


def write_report(
    out: Path, instances: Sequence[Instance], verdicts: Sequence[Verdict]
) -> None:
    """Write the final report, with the trusted passes if gold ran."""
    report = final_report(instances, best_verdicts(verdicts))
    if (out / GOLD).is_dir():
        report |= trusted_part(verdicts)
    write_json(out / "report.json", report)


def _trust_lines(options: GradeOptions, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Lines about passes that are trusted, or that may not be."""
    passes = [v for v in verdicts if v.status is Status.RESOLVED]
    if not options.gold_runs:
        if passes:
            yield (
                f"{len(passes)} passes had no counter-run; --gold-runs shows which of "
                "them to trust"
            )
        return
    counts = verdict_counts(verdicts, counter_runs=True)
    yield f"trusted passes: {trust_label(counts.trust)}"
    rows = each_row(options.out / GOLD / "verdicts.jsonl")
    failed = [
        v
        for v in (from_row(Verdict, r) for r in rows)
        if v.status is not Status.RESOLVED
    ]
    if failed:
        yield (
            f"gold fails for {len(failed)} instances on this machine, for example "
            f"{failed[0].instance_id}: their passes are compared with nothing"
        )


def grade_table(
    plugins: Plugins, options: GradeOptions, named: Iterable[Instance]
) -> GradeTable:
    """`[grade]` with the given limits, or else with those that suit the instances.

    Raises:
        RecipeError: The grader has no memory limit, or a limit is invalid.
    """
    config = plugins.registry.config(GradeTable, options.grader)
    pro = any(instance.apply_mode == "pro" for instance in named)
    given = {"timeout": options.timeout, "memory": options.memory}
    limits = {
        **{k: v for k, v in (PRO_DEFAULTS if pro else DEFAULTS).items()},
        **{k: v for k, v in given.items() if v is not None},
    }
    if "memory" not in config.model_fields:
        limits.pop("memory", None)
        if options.memory is not None:
            raise RecipeError(
                f"The grader {options.grader} has no memory limit.",
                hint="Leave out --memory, or choose another grader.",
            )
    try:
        return config.model_validate(
            {
                "use": options.grader,
                "workers": options.workers,
                "cache": options.cache,
                **limits,
            }
        )
    except ValidationError as error:
        detail = error.errors()[0]
        raise RecipeError(f"--{detail['loc'][0]}: {detail['msg']}.") from error


def _claim_directory(out: Path, settings: dict[str, object]) -> StageDir:
    """The directory of a new grading, or of one to resume with the same settings.

    Raises:
        DataError: The directory holds something else.
    """
    folder = StageDir(out)
    begun = folder.begun()
    if begun is not None:  # gradings of older formats can be resumed
        begun.pop("format", None)
        begun = {**settings, "gold_runs": False, **begun}
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if begun is None and found - {LOCK}:
        raise DataError(
            f"{out} exists and is not a grading.",
            hint="Choose a new directory with --out.",
        )
    if begun not in (None, settings):
        different = [key for key in settings if begun.get(key) != settings[key]]
        raise DataError(
            f"{out} holds a grading with different {', '.join(different)}.",
            hint="Choose another directory with --out. Test runs that both gradings need "
            "come from the cache.",
        )
    return folder


def repeated_predictions(verdicts: Iterable[Verdict]) -> list[str]:
    """Instances with more than one prediction of a model, in order."""
    return list(dict.fromkeys(v.instance_id for v in verdicts if v.sample == 1))


def answered_without_run(out: Path) -> dict[str, int]:
    """Number of verdicts that needed no test run, by where they came from."""
    rows = each_row(out / "timings.jsonl")
    found = Counter(row["answered_by"] for row in rows)
    del found["run"]
    return dict(found.most_common())


def _candidates(
    files: Iterable[Path], instances: dict[str, Instance]
) -> list[Candidate]:
    """A candidate per prediction, numbered per model and instance."""
    candidates: list[Candidate] = []
    seen: Counter[tuple[str, str]] = Counter()
    for file in files:
        for prediction in read_predictions(file):
            if prediction.instance_id not in instances:
                raise DataError(
                    f"{prediction.place}: the data has no instance "
                    f"{prediction.instance_id!r}.",
                    hint="Pass the data that the predictions were made for with --data.",
                )
            name, model = prediction.instance_id, prediction.model
            patch, sample = prediction.patch, seen[model, name]
            candidates.append(Candidate(name, sample, model, text=patch, patch=patch))
            seen[model, name] += 1
    if not candidates:
        raise RecipeError("The predictions files are empty: no predictions to grade.")
    return candidates


_RANK = (Status.RESOLVED, Status.UNRESOLVED)


def best_verdicts(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The best verdict of each instance: resolved before unresolved before errors."""
    best: dict[str, Verdict] = {}
    for verdict in verdicts:
        known = best.get(verdict.instance_id)
        if known is None or _rank(verdict) < _rank(known):
            best[verdict.instance_id] = verdict
    return list(best.values())


def _rank(verdict: Verdict) -> int:
    return _RANK.index(verdict.status) if verdict.status in _RANK else len(_RANK)
