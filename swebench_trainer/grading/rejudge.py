"""Verdicts derived again from the logs of earlier runs, without running anything."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swebench_trainer.contracts import GoldRun, GradeJob
from swebench_trainer.grading import official
from swebench_trainer.grading.outcome import derive_outcome
from swebench_trainer.grading.retest import UNCONFIRMED, of_first_run
from swebench_trainer.grading.sandbox import Execution, read_execution
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import each_value, write_bytes, write_rows
from swebench_trainer.types import (
    Candidate,
    Extraction,
    ExtractionOutcome,
    Instance,
    Status,
    Verdict,
    as_row,
)


@dataclass(frozen=True)
class RejudgedFile:
    """A file of verdicts, before and after judging its logs again.

    Attributes:
        path: The file; paths of logs are relative to its directory.
        before: The verdicts in the file.
        after: The verdicts derived now, in the same order; the same objects where
            nothing was derived or nothing changed.
        derived: Number of derived verdicts; the others lack the logs of a finished
            run.
    """

    path: Path
    before: tuple[Verdict, ...]
    after: tuple[Verdict, ...]
    derived: int

    @property
    def changes(self) -> list[tuple[Verdict, Verdict]]:
        """Each changed verdict, before and after."""
        both = zip(self.before, self.after, strict=True)
        return [(before, after) for before, after in both if before is not after]

    def write(self) -> None:
        """Replace the verdicts, and the harness's reports next to the logs."""
        if not self.changes:
            return
        for _, after in self.changes:
            reports = {after.instance_id: after.report}
            content = json.dumps(reports, indent=4).encode()  # the harness's format
            write_bytes(self.path.parent / after.log / official.REPORT, content)
        write_rows(self.path, map(as_row, self.after))


def rejudge_file(
    path: Path,
    instances: Mapping[str, Instance],
    gold: Callable[[Instance], GoldRun | None],
) -> RejudgedFile:
    """Derive the verdicts of a file again.

    Args:
        path: `verdicts.jsonl` of a ledger.
        instances: The instances by id; verdicts of other instances stay unchanged.
        gold: Returns the gold run of an instance.
    """
    before = tuple(each_value(path, Verdict))
    golds: dict[str, GoldRun | None] = {}
    after, derived = list(before), 0
    for number, verdict in enumerate(before):
        name, log_dir = verdict.instance_id, path.parent / verdict.log
        if name not in instances or not verdict.log:
            continue
        execution, candidate = _judged_run(log_dir), _candidate(verdict, log_dir)
        if execution is None or candidate is None:
            continue
        if name not in golds:
            golds[name] = gold(instances[name])
        job = GradeJob(instances[name], candidate, log_dir, gold=golds[name])
        after[number] = _derived(verdict, job, execution)
        derived += 1
    return RejudgedFile(path, before, tuple(after), derived)


def _judged_run(log_dir: Path) -> Execution | None:
    """The run, if its verdict was derived from a test log and can be again."""
    execution = read_execution(log_dir)
    if execution is None or not (log_dir / official.TEST_LOG).exists():
        return None
    ended = execution.tested and not (execution.timed_out or execution.fault)
    return execution if ended else None


def _candidate(verdict: Verdict, log_dir: Path) -> Candidate | None:
    """The candidate with the patch next to the logs, if that is the graded patch."""
    path = log_dir / official.PATCH
    content = path.read_bytes() if path.exists() else b""
    patch = content.decode("utf-8", "surrogateescape")
    if digest(patch) != verdict.patch:
        return None
    # Pro's no-op has an empty file there; a graded patch is never empty.
    outcome = ExtractionOutcome.OK if patch else ExtractionOutcome.NO_OP
    name, sample, model = verdict.instance_id, verdict.sample, verdict.model
    return Candidate(name, sample, model, "", patch, Extraction(outcome))


def _derived(verdict: Verdict, job: GradeJob, execution: Execution) -> Verdict:
    """The verdict by today's rules; the same object if nothing changed."""
    # The harness writes its report next to the log; a dry run must not change it.
    with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as scratch:
        for name in (official.APPLY_LOG, official.TEST_LOG):
            Path(scratch, name).symlink_to((job.log_dir / name).absolute())
        copy = dataclasses.replace(job, log_dir=Path(scratch))
        outcome = derive_outcome(copy, 0, execution)
    flags = set(outcome.flags)
    # The sandbox was inspected only if the tests passed by the rules of that time.
    inspected = verdict.status is Status.RESOLVED or execution.evidence
    if outcome.status is Status.RESOLVED and not inspected:
        flags.add(UNCONFIRMED)
    now = dataclasses.replace(
        verdict,
        status=outcome.status,
        report=dict(outcome.report),
        flags=tuple(sorted(flags)),
        reason=outcome.reason,
        strength=None,
    )
    # Another wording of the reason is not a change of the verdict.
    before = dataclasses.replace(of_first_run(verdict), reason=now.reason)
    return verdict if now == before else now
