"""Verdicts derived again from the logs of earlier runs; nothing is run."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swebench_trainer.contracts import GoldRun, GradeJob
from swebench_trainer.grading.official import (
    APPLY_LOG,
    PATCH,
    REPORT,
    TEST_LOG,
)
from swebench_trainer.grading.outcome import derive_outcome
from swebench_trainer.grading.retest import UNCONFIRMED, without_retest_flags
from swebench_trainer.grading.sandbox import Execution, read_execution
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import each_row, write_bytes, write_rows
from swebench_trainer.types import (
    Candidate,
    Extraction,
    ExtractionOutcome,
    Instance,
    Status,
    Verdict,
    as_row,
    from_row,
)


@dataclass(frozen=True)
class RejudgedFile:
    """A file of verdicts, and what its logs say now.

    Attributes:
        path: The file; the logs are named from its directory.
        was: The verdicts in it.
        now: What they would be, in the same order; the same object where nothing
            was derived or nothing has changed.
        derived: How many were derived; the rest has no logs of a finished run.
    """

    path: Path
    was: tuple[Verdict, ...]
    now: tuple[Verdict, ...]
    derived: int

    @property
    def changes(self) -> list[tuple[Verdict, Verdict]]:
        """Each verdict that changes, as it was and as it is."""
        both = zip(self.was, self.now, strict=True)
        return [(was, now) for was, now in both if was is not now]

    def write(self) -> None:
        """Replaces the verdicts and the harness's reports beside the logs."""
        if not self.changes:
            return
        for _, now in self.changes:
            reports = {now.instance_id: now.report}
            content = json.dumps(reports, indent=4).encode()  # as the harness has it
            write_bytes(self.path.parent / now.log / REPORT, content)
        write_rows(self.path, map(as_row, self.now))


def rejudge_file(
    path: Path,
    instances: Mapping[str, Instance],
    gold: Callable[[Instance], GoldRun | None],
) -> RejudgedFile:
    """Derives the verdicts of a file again.

    Args:
        path: `verdicts.jsonl` of a ledger.
        instances: The instances by id; verdicts about others stay.
        gold: Looks up the gold run of an instance.
    """
    was = tuple(from_row(Verdict, row) for row in each_row(path))
    jobs = list(_jobs(path.parent, was, instances))
    golds: dict[str, GoldRun | None] = {}
    now: list[Verdict] = []
    for verdict, job in zip(was, jobs, strict=True):
        if job is None:
            now.append(verdict)
            continue
        name = verdict.instance_id
        if name not in golds:
            golds[name] = gold(job.instance)
        job = dataclasses.replace(job, gold=golds[name])
        now.append(_derived(verdict, job))
    derived = sum(job is not None for job in jobs)
    return RejudgedFile(path, was, tuple(now), derived)


def _jobs(
    folder: Path, verdicts: Sequence[Verdict], instances: Mapping[str, Instance]
) -> Iterator[GradeJob | None]:
    """The job that each verdict is about, `None` where its logs do not tell."""
    for verdict in verdicts:
        instance = instances.get(verdict.instance_id)
        log_dir = folder / verdict.log
        known = instance is not None and verdict.log and _was_judged(log_dir)
        candidate = _candidate(verdict, log_dir) if known else None
        if instance is None or candidate is None:
            yield None
        else:
            yield GradeJob(instance, candidate, log_dir)


def _was_judged(log_dir: Path) -> bool:
    """Whether the verdict was read from a test log, which can be done again."""
    execution = read_execution(log_dir)
    if execution is None or not (log_dir / TEST_LOG).exists():
        return False
    return execution.tested and not (execution.timed_out or execution.fault)


def _candidate(verdict: Verdict, log_dir: Path) -> Candidate | None:
    """The candidate with the patch that lies beside the logs, if it is the graded one."""
    path = log_dir / PATCH
    content = path.read_bytes() if path.exists() else b""
    patch = content.decode("utf-8", "surrogateescape")
    if digest(patch) != verdict.patch:
        return None
    # Pro's no-op has an empty file there; a patch that was graded is never empty.
    outcome = ExtractionOutcome.OK if patch else ExtractionOutcome.NO_OP
    name, sample, model = verdict.instance_id, verdict.sample, verdict.model
    return Candidate(name, sample, model, "", patch, Extraction(outcome))


def _derived(verdict: Verdict, job: GradeJob) -> Verdict:
    """What the logs say now; the same object if they say the same."""
    execution = read_execution(job.log_dir)
    assert execution is not None  # `_was_judged`
    # The harness writes its report beside the log, which nobody has asked for yet.
    with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as scratch:
        for name in (APPLY_LOG, TEST_LOG):
            Path(scratch, name).symlink_to((job.log_dir / name).absolute())
        copy = dataclasses.replace(job, log_dir=Path(scratch))
        outcome = derive_outcome(copy, 0, execution)
    flags = set(outcome.flags)
    if outcome.status is Status.RESOLVED and not _was_seen(verdict, execution):
        flags.add(UNCONFIRMED)
    now = dataclasses.replace(
        verdict,
        status=outcome.status,
        report=dict(outcome.report),
        flags=tuple(sorted(flags)),
        reason=outcome.reason,
    )
    # Another wording of the reason is not a change of the verdict.
    before = dataclasses.replace(without_retest_flags(verdict), reason=now.reason)
    return verdict if now == before else now


def _was_seen(verdict: Verdict, execution: Execution) -> bool:
    """Whether somebody has looked into the sandbox; it is done for passes alone."""
    return verdict.status is Status.RESOLVED or execution.evidence is not None
