"""Grading outside a recipe: `swebench-train grade`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from swebench_trainer.contracts import ItemProgress, Source
from swebench_trainer.errors import DataError, RecipeError
from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.grading.official import final_report
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import DataTable, GradeTable
from swebench_trainer.store.jsonl import each_row, write_json, write_rows
from swebench_trainer.store.locks import owned
from swebench_trainer.store.predictions import read_predictions
from swebench_trainer.store.rundir import FORMAT, StageDir
from swebench_trainer.types import Candidate, Instance, Status, Verdict, as_row

INSTANCES = "instances.jsonl"
"""Name of the file beside the verdicts that holds the data as it was graded."""

LOCK = "lock.json"
"""Says who grades into a directory; it may be all that a failed check leaves."""


def grade_predictions(
    plugins: Plugins,
    *,
    data: str,
    split: str,
    predictions: Sequence[Path],
    out: Path,
    grader: str,
    workers: int,
    timeout: int,
    cache: bool,
    done: ItemProgress,
) -> list[Verdict]:
    """Grades predictions files; any number of predictions per instance.

    Writes `verdicts.jsonl` (a row per prediction, in the order of the files), the
    harness's logs, the data that was graded (for `regrade`), and `report.json` in the
    harness's schema, in which an instance counts by the best of its predictions.

    Args:
        plugins: Where the source and the grader come from.
        data: A task repo's directory, a file of rows, or a dataset of the Hub.
        split: Split of a Hub dataset.
        predictions: Predictions files in any of the harness's forms.
        out: Directory for the results; grading goes on where it stopped.
        grader: Name of a grader.
        workers: Candidates at once; 0 means three quarters of the cores.
        timeout: Seconds that one candidate's tests may take.
        cache: Whether runs are kept for, and taken from, other gradings.
        done: Called after each verdict.

    Raises:
        DataError: Data or predictions cannot be used, or `out` holds verdicts of
            other data or another grader.
        PrerequisiteError: The grader cannot work on this machine.
        StageError: The machine failed for some of them; the rest is written.
    """
    source = open_source(plugins, data, split)
    instances = {i.instance_id: i for i in source.load().instances}
    candidates = _candidates(predictions, instances)
    named = [instances[i] for i in dict.fromkeys(c.instance_id for c in candidates)]
    if without := [i for i in named if not i.gradable]:
        raise DataError(
            f"{len(without)} of {len(named)} instances cannot be graded, for example "
            f"{without[0].instance_id}: {without[0].ungradable}.",
            hint="Grading needs eval_script, log_parser and FAIL_TO_PASS. Rows without "
            "them can be trained on, but not graded.",
        )
    settings = {"data": source.digest(), "grader": grader, "timeout": timeout}
    folder = _own_directory(out, settings)
    config = plugins.registry.config(GradeTable, grader)
    table = config(use=grader, workers=workers, timeout=timeout, cache=cache)
    with owned(out / LOCK):
        engine = plugins.registry.create("grader", table)
        try:
            engine.check(named)
            folder.begin({**settings, "format": FORMAT})
            write_rows(out / INSTANCES, map(as_row, instances.values()))
            ledger = Ledger(out, named, run_id="grade")
            verdicts = ledger.grade(engine, candidates, done)
        finally:
            engine.close()
        report = final_report(list(instances.values()), best_verdicts(verdicts))
        write_json(out / "report.json", report)
    require_decided(verdicts, max_faults=0)
    return verdicts


def _own_directory(out: Path, settings: dict[str, object]) -> StageDir:
    """The directory of a new grading, or of one with these settings to go on with.

    Raises:
        DataError: It is another's.
    """
    folder = StageDir(out)
    begun = folder.begun()
    if begun is not None:  # gradings of older formats can be resumed
        begun.pop("format", None)
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if begun is None and found - {LOCK}:
        raise DataError(
            f"{out} holds something else than a grading.",
            hint="Name a new directory with --out.",
        )
    if begun not in (None, settings):
        raise DataError(
            f"{out} was graded with other settings: {begun}, now {settings}.",
            hint="Name another directory with --out.",
        )
    return folder


def answers(out: Path) -> dict[str, int]:
    """How often something else than a run of the tests has answered, by what it was."""
    rows = each_row(out / "timings.jsonl")
    found = Counter(row["answered_by"] for row in rows)
    del found["run"]
    return dict(found.most_common())


def open_source(plugins: Plugins, data: str, split: str) -> Source:
    """The source that a command line's `--data` names."""
    use = "task-repo" if Path(data).is_dir() else "rows"
    values = {"use": use, "path": data}
    if use == "rows":
        values["split"] = split
    table = plugins.registry.config(DataTable, use).model_validate(values)
    return plugins.registry.create("source", table)


def _candidates(
    files: Iterable[Path], instances: dict[str, Instance]
) -> list[Candidate]:
    """A candidate per prediction, numbered per model and instance."""
    candidates: list[Candidate] = []
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for file in files:
        for prediction in read_predictions(file):
            if prediction.instance_id not in instances:
                raise DataError(
                    f"{prediction.place}: the data has no instance "
                    f"{prediction.instance_id!r}."
                )
            key = (prediction.model, prediction.instance_id)
            patch = prediction.patch
            candidates.append(
                Candidate(
                    instance_id=prediction.instance_id,
                    sample=seen[key],
                    model=prediction.model,
                    text=patch,
                    patch=patch,
                )
            )
            seen[key] += 1
    if not candidates:
        raise RecipeError("The predictions files hold no prediction.")
    return candidates


_RANK = (Status.RESOLVED, Status.UNRESOLVED)


def best_verdicts(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Of each instance the verdict that counts: resolved before unresolved before errors."""
    best: dict[str, Verdict] = {}
    for verdict in verdicts:
        known = best.get(verdict.instance_id)
        if known is None or _rank(verdict) < _rank(known):
            best[verdict.instance_id] = verdict
    return list(best.values())


def _rank(verdict: Verdict) -> int:
    return _RANK.index(verdict.status) if verdict.status in _RANK else len(_RANK)
