"""`swebench-train regrade`: new verdicts from kept logs, and what follows from them."""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swebench_trainer.commands.grade import INSTANCES, best_verdicts
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.grading.official import final_report
from swebench_trainer.grading.rejudge import RejudgedFile, rejudge_file
from swebench_trainer.pipeline import fingerprint
from swebench_trainer.stages.context import gold_runs
from swebench_trainer.stages.graph import STAGES, dependents
from swebench_trainer.store.jsonl import each_row, read_json, write_json
from swebench_trainer.store.locks import owned
from swebench_trainer.store.rundir import FORMAT, RunDir, StageDir
from swebench_trainer.types import Instance, Verdict, from_row

Change = tuple[str, Verdict, Verdict]
"""The directory of a verdict, the verdict as it was, and as it is."""

GRADED = ("admit", "grade", "evaluate")
"""Stages with verdicts, in order."""


@dataclass(frozen=True)
class Summary:
    """What regrading has found.

    Attributes:
        changes: Each verdict that changes.
        derived: How many were derived from logs.
        total: How many there are.
        again: Stages of a run that its next call does or finishes again, in order.
    """

    changes: tuple[Change, ...]
    derived: int
    total: int
    again: tuple[str, ...] = ()


def regrade(folder: Path, *, dry_run: bool) -> Summary:
    """Derives every verdict of a directory again, as far as its logs are there.

    Args:
        folder: What `swebench-train grade --out` has written, or a run directory.
        dry_run: Whether nothing is written.

    Raises:
        DataError: The directory is neither.
        StageError: It is in use, or its grading is not done.
    """
    run = RunDir(folder)
    if run.facts.exists():
        with owned(run.lock):
            return _regrade_run(run, dry_run)
    if StageDir(folder).begun() is None or not (folder / INSTANCES).exists():
        raise DataError(
            f"{folder} is neither a run directory nor what `grade --out` has written.",
            hint="Run directories are called runs/NAME.",
        )
    with owned(folder / "lock.json"):
        return _regrade_grading(folder, dry_run)


def _regrade_grading(folder: Path, dry_run: bool) -> Summary:
    """The directory of `grade --out`."""
    if not (folder / "report.json").exists():
        raise StageError(
            f"The grading in {folder} is not done.",
            hint="Go on with the same `swebench-train grade` command first.",
        )
    instances = _instances(folder / INSTANCES)
    found = rejudge_file(folder / "verdicts.jsonl", instances, lambda _: None)
    if found.changes and not dry_run:
        found.write()
        report = final_report(list(instances.values()), best_verdicts(found.now))
        write_json(folder / "report.json", report)
    return _summary([found], folder)


def _regrade_run(run: RunDir, dry_run: bool) -> Summary:
    """A run directory: its verdicts are replaced, what follows is to be done again."""
    instances = _instances(run.stage("prepare").file("instances.jsonl"))
    found = {name: _stage_verdicts(run, name, instances) for name in GRADED}
    here = [stage for stage in STAGES if run.stage(stage.name).path.exists()]
    changed = [name for name in GRADED if _matters(name, found[name])]
    resumable = (read_json(run.facts) or {}).get("format", 1) == FORMAT
    if changed and not resumable and not dry_run:
        raise StageError(
            f"Verdicts of {run.path} change, and an older version made it, so its later "
            "stages could not be rerun.",
            hint="--dry-run shows the changes. Start a new run with --name.",
        )
    anew = {
        follower
        for name in changed
        for follower in dependents([name], here)
        if follower != name
    }
    if not dry_run:
        for name in anew:
            run.set_aside(run.stage(name))
        for name in GRADED:
            if name not in anew:
                if name in changed:  # its verdicts decide what else it writes
                    run.stage(name).file("stage.json").unlink(missing_ok=True)
                for file in found[name]:
                    file.write()
        if resumable:
            _adopt_harness(run)
    again = tuple(s.name for s in here if s.name in anew.union(changed))
    return _summary(itertools.chain(*found.values()), run.path / "stages", again)


def _stage_verdicts(
    run: RunDir, name: str, instances: Mapping[str, Instance]
) -> list[RejudgedFile]:
    """Every file of verdicts of a stage; gold itself has no gold to compare with."""
    gold = (lambda _: None) if name == "admit" else gold_runs(run.stage("admit"))
    patterns = ("verdicts.jsonl", "*/verdicts.jsonl", "again/*/verdicts.jsonl")
    paths = sorted(
        p for pattern in patterns for p in run.stage(name).path.glob(pattern)
    )
    return [rejudge_file(path, instances, gold) for path in paths]


def _matters(stage: str, files: Iterable[RejudgedFile]) -> bool:
    """Whether a stage's result may change; admission does not look at flags."""
    changes = [change for file in files for change in file.changes]
    if stage == "admit":
        return any(was.status is not now.status for was, now in changes)
    return bool(changes)


def _adopt_harness(run: RunDir) -> None:
    """Records that the verdicts are now those of the installed harness.

    Fingerprints name its version; a run that has been regraded goes on under the new
    one, though nothing else may have changed.
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
        folder.begin(new)
        if manifest := folder.finished():
            folder.finish({**manifest, **new})


def _instances(path: Path) -> dict[str, Instance]:
    instances = (from_row(Instance, row) for row in each_row(path))
    return {instance.instance_id: instance for instance in instances}


def _summary(
    files: Iterable[RejudgedFile], base: Path, again: tuple[str, ...] = ()
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
        total=sum(len(file.was) for file in files),
        again=again,
    )
