"""`swebench-train regrade`: verdicts derived again from stored logs."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from swebench_trainer.commands.grade import (
    INSTANCES,
    passing_gold_runs,
    write_report,
)
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.grading.counter.runs import (
    COUNTER,
    RejudgedRuns,
    checked,
    rejudge_runs,
)
from swebench_trainer.grading.rejudge import RejudgedFile, rejudge_file
from swebench_trainer.grading.retest import of_first_run
from swebench_trainer.pipeline import fingerprint
from swebench_trainer.reporting.console import open_console, print_line
from swebench_trainer.reporting.listings import verdict_change
from swebench_trainer.stages.context import gold_runs
from swebench_trainer.stages.graph import STAGES, dependents
from swebench_trainer.store.jsonl import each_value, read_json
from swebench_trainer.store.locks import owned
from swebench_trainer.store.rundir import FORMAT, RunDir, StageDir
from swebench_trainer.types import Instance, Verdict

Change = tuple[str, Verdict, Verdict]
"""The directory of a verdict, the old verdict, and the new one."""

GRADED = ("admit", "grade", "evaluate")
"""Stages with verdicts, in the order of a run."""


@dataclass(frozen=True)
class Summary:
    """The result of regrading a directory.

    Attributes:
        changes: Every verdict that changes.
        derived: Number of verdicts that could be derived from logs.
        total: Number of all verdicts.
        reruns: Stages that the next `swebench-train run` reruns, in order.
        counter_changes: Number of counter-runs of a run whose results change.
    """

    changes: tuple[Change, ...]
    derived: int
    total: int
    reruns: tuple[str, ...] = ()
    counter_changes: int = 0


def execute(folder: Path, *, dry_run: bool) -> None:
    """Regrades a directory and prints the changes.

    Args:
        folder: A run directory, or the output of `grade --out`.
        dry_run: Whether to leave the directory unchanged.
    """
    console = open_console()
    summary = regrade(folder, dry_run=dry_run)
    for change in summary.changes:
        print_line(console, verdict_change(*change))
    rest = summary.total - summary.derived
    print_line(
        console,
        f"{len(summary.changes)} of {summary.total} verdicts change; {rest} have no "
        "complete test log and stay unchanged",
    )
    if summary.counter_changes:
        print_line(console, f"{summary.counter_changes} counter-runs change")
    if summary.reruns:
        will = "would" if dry_run else "will"
        stages = ", ".join(summary.reruns)
        print_line(console, f"the next `swebench-train run` {will} rerun: {stages}")


def regrade(folder: Path, *, dry_run: bool) -> Summary:
    """Derives every verdict that has logs again.

    Args:
        folder: A run directory, or the output of `grade --out`.
        dry_run: Whether to leave the directory unchanged.

    Raises:
        DataError: The directory is neither.
        StageError: The directory is in use, or its grading has not finished.
    """
    run = RunDir(folder)
    if run.facts.exists():
        with owned(run.lock):
            return _regrade_run(run, dry_run)
    if StageDir(folder).begun() is None or not (folder / INSTANCES).exists():
        raise DataError(
            f"{folder} is neither a run directory (expected runs/NAME) nor the output of "
            "`grade --out`.",
        )
    with owned(folder / "lock.json"):
        return _regrade_grading(folder, dry_run)


def _regrade_grading(folder: Path, dry_run: bool) -> Summary:
    """Regrades the output of `grade --out`."""
    if not (folder / "report.json").exists():
        raise StageError(
            f"{folder}: grading has not finished.",
            hint="Run the same `swebench-train grade` command again first.",
        )
    instances = _instances(folder / INSTANCES)
    gold = passing_gold_runs(folder)
    found = rejudge_file(folder / "verdicts.jsonl", instances, gold)
    found = _with_counter_runs(found, rejudge_runs(folder / COUNTER, instances))
    if found.changes and not dry_run:
        found.write()
        write_report(folder, list(instances.values()), found.after)
    return _summary([found], folder)


def _with_counter_runs(found: RejudgedFile, runs: RejudgedRuns) -> RejudgedFile:
    """The verdicts of a grading with the results of their counter-runs."""
    after = []
    for before, verdict in zip(found.before, found.after, strict=True):
        run = runs.by_patch.get((verdict.instance_id, verdict.patch))
        now = checked(of_first_run(verdict), run)
        same = now == dataclasses.replace(before, reason=now.reason)
        after.append(before if same else now)
    return dataclasses.replace(found, after=tuple(after))


def _regrade_run(run: RunDir, dry_run: bool) -> Summary:
    """Regrades a run, and marks the stages downstream of changed verdicts for a rerun."""
    instances = _instances(run.stage("prepare").file("instances.jsonl"))
    found = {name: _stage_verdicts(run, name, instances) for name in GRADED}
    counter = {name: _counter_changes(run, name, instances) for name in GRADED}
    here = [stage for stage in STAGES if run.stage(stage.name).path.exists()]
    changed = [
        name for name in GRADED if counter[name] or _affects_results(name, found[name])
    ]
    resumable = (read_json(run.facts) or {}).get("format", 1) == FORMAT
    if changed and not resumable and not dry_run:
        raise StageError(
            f"{run.path}: verdicts change, but an older version created this run, so its "
            "later stages cannot be rerun.",
            hint="Show the changes with --dry-run, or start a new run with --name.",
        )
    followers = {name: dependents([name], here) for name in changed}
    stale = {f for name, found in followers.items() for f in found if f != name}
    if not dry_run:
        for name in stale:
            run.set_aside(run.stage(name))
        for name in GRADED:
            if name not in stale:
                if name in changed:  # its other files depend on its verdicts
                    run.stage(name).file("stage.json").unlink(missing_ok=True)
                for file in found[name]:
                    file.write()
                if any(file.changes for file in found[name]):
                    run.stage(name).accept()
        if resumable:
            _adopt_harness(run)
    reruns = tuple(s.name for s in here if s.name in stale.union(changed))
    return _summary(
        chain(*found.values()),
        run.path / "stages",
        reruns,
        counter_changes=sum(counter.values()),
    )


def _stage_verdicts(
    run: RunDir, name: str, instances: Mapping[str, Instance]
) -> list[RejudgedFile]:
    """Regrades every verdicts file of a stage.

    Admission runs gold itself, so its verdicts have no gold runs to compare with.
    """
    gold = (lambda _: None) if name == "admit" else gold_runs(run.stage("admit"))
    patterns = ("verdicts.jsonl", "*/verdicts.jsonl", "again/*/verdicts.jsonl")
    found = chain.from_iterable(map(run.stage(name).path.glob, patterns))
    # Verdicts of counter-runs are on changed tests.
    paths = sorted(path for path in found if path.parent.name != COUNTER)
    return [rejudge_file(path, instances, gold) for path in paths]


def _counter_changes(run: RunDir, name: str, instances: Mapping[str, Instance]) -> int:
    """Number of a stage's counter-runs whose results change."""
    return rejudge_runs(run.stage(name).file(COUNTER), instances).changes


def _affects_results(stage: str, files: Iterable[RejudgedFile]) -> bool:
    """Whether a stage's result may change; admission ignores flags."""
    changes = [change for file in files for change in file.changes]
    if stage == "admit":
        return any(was.status is not now.status for was, now in changes)
    return bool(changes)


def _adopt_harness(run: RunDir) -> None:
    """Records that the verdicts now come from the installed harness.

    Fingerprints include the version of the harness. A regraded run resumes with the
    installed version; any other difference is still refused.
    """
    version = importlib.metadata.version("swebench")
    digests: dict[str, str] = {}
    for stage in STAGES:
        folder = run.stage(stage.name)
        old = folder.begun()
        if old is None:
            continue
        plugins = dict(old["plugins"])
        if "swebench" in plugins:
            plugins["swebench"] = version
        inputs = {name: digests.get(name, was) for name, was in old["inputs"].items()}
        new = fingerprint(old["settings"], plugins, inputs)
        digests[stage.name] = new["digest"]
        if new == old:
            continue
        folder.adopt(new)


def _instances(path: Path) -> dict[str, Instance]:
    return {i.instance_id: i for i in each_value(path, Instance)}


def _summary(
    files: Iterable[RejudgedFile],
    base: Path,
    reruns: tuple[str, ...] = (),
    counter_changes: int = 0,
) -> Summary:
    files = list(files)
    changes = [
        (str(file.path.parent.relative_to(base)), was, now)
        for file in files
        for was, now in file.changes
    ]
    return Summary(
        tuple(changes),
        derived=sum(file.derived for file in files),
        total=sum(len(file.before) for file in files),
        reruns=reruns,
        counter_changes=counter_changes,
    )
