"""Grading of many candidates, with verdicts in a file that survives a kill.

Each verdict is written at once and never graded again. An infrastructure failure is
not a verdict: the candidate stays owed, and the next attempt grades it again. Equal
patches of one instance are graded once.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import GoldRun, GradeJob, Grader, ItemProgress, Outcome
from swebench_trainer.errors import StageError
from swebench_trainer.grading.official import OWED
from swebench_trainer.grading.outcome import outcome_without_patch
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import RowWriter, each_value, write_rows
from swebench_trainer.types import (
    Candidate,
    Instance,
    Status,
    Verdict,
    as_row,
)

Key = tuple[str, str, int, str]
"""Model, instance id, sample number and digest of the patch of a verdict."""


class Ledger:
    """The verdicts of one stage: `verdicts.jsonl`, `timings.jsonl` and `logs/`.

    Args:
        folder: Directory of the stage.
        instances: The instances that candidates may refer to.
        run_id: Name of the run in the harness's log layout.
        tests_of: The instance that a candidate runs on, if its tests were changed.
        growing: Whether more candidates follow: `grade` keeps other rows of the file,
            and `settle` ends it.
    """

    def __init__(
        self,
        folder: Path,
        instances: Iterable[Instance],
        *,
        run_id: str,
        tests_of: Callable[[Instance, Candidate], Instance] = lambda i, _: i,
        growing: bool = False,
    ) -> None:
        self._folder = folder
        self._growing = growing
        self._tests_of = tests_of
        self._instances = {i.instance_id: i for i in instances}
        self._logs = Path("logs", "run_evaluation", run_id)
        self.path = folder / "verdicts.jsonl"

    def grade(
        self,
        grader: Grader,
        candidates: Sequence[Candidate],
        done: ItemProgress,
        *,
        once_per_patch: bool = True,
        repeat: Callable[[Candidate], int] = lambda _: 0,
        gold: Callable[[Instance], GoldRun | None] = lambda _: None,
    ) -> list[Verdict]:
        """Grade every candidate that has no verdict yet.

        Args:
            grader: Runs the tests.
            candidates: Candidates; each `(model, instance_id, sample)` once.
            done: Called after each verdict.
            once_per_patch: Whether equal patches share one run. Repeated runs
                of one patch (gold, flakiness) need `False`.
            repeat: Number of the run of its patch that a candidate needs.
            gold: The gold run of an instance; called once, and only if needed.

        Returns:
            The verdicts, in the order of the candidates.
        """
        verdicts = {
            key: verdict
            for key, verdict in self._read().items()
            if verdict.status not in OWED or verdict.explained
        }
        decided = {_key(v, once_per_patch): v for v in verdicts.values()}
        owed = [c for c in candidates if _key(c) not in verdicts]
        count = len(candidates) - len(owed)
        with (
            RowWriter(self.path) as rows,
            RowWriter(self._folder / "timings.jsonl") as timings,
        ):

            def decide(verdict: Verdict) -> None:
                nonlocal count
                rows.write(as_row(verdict))
                verdicts[_key(verdict)] = verdict
                count += 1
                name = f"{verdict.instance_id} #{verdict.sample}"
                done(name, count, len(candidates), verdict.status)

            groups: dict[Key, list[Candidate]] = defaultdict(list)
            for candidate in owed:
                group = _key(candidate, once_per_patch)
                if outcome := outcome_without_patch(candidate):
                    decide(_verdict(candidate, outcome, ""))
                elif known := decided.get(group):
                    model, sample = candidate.model, candidate.sample
                    decide(dataclasses.replace(known, model=model, sample=sample))
                else:
                    groups[group].append(candidate)
            first = [same[0] for same in groups.values()]
            named = dict.fromkeys(candidate.instance_id for candidate in first)
            golds = {name: gold(self._instances[name]) for name in named}
            jobs = [self._job(c, repeat(c), golds[c.instance_id]) for c in first]
            for job, outcome in grader.grade(jobs):
                timings.write(_timing(job, outcome))
                log = str(job.log_dir.relative_to(self._folder))
                for candidate in groups[_key(job.candidate, once_per_patch)]:
                    decide(_verdict(candidate, outcome, log))
        ordered = [verdicts[_key(c)] for c in candidates]
        if not self._growing:
            write_rows(self.path, map(as_row, ordered))
        return ordered

    def settle(self, candidates: Sequence[Candidate]) -> None:
        """Write the verdicts on graded candidates in their order, and no others."""
        verdicts = self._read()
        write_rows(self.path, (as_row(verdicts[_key(c)]) for c in candidates))

    def _read(self) -> dict[Key, Verdict]:
        """The last verdict of each candidate in the file.

        Raises:
            StageError: A row is damaged, or contradicts the decision of another.
        """
        names: dict[str, str] = {}

        def interned(row: dict[str, Any]) -> dict[str, Any]:
            return {**row, "report": _interned(row["report"], names)}

        def decision(verdict: Verdict) -> tuple[Any, ...]:
            undecided = verdict.status in OWED and not verdict.explained
            return (*_key(verdict), object() if undecided else None)

        verdicts = each_value(self.path, Verdict, decision, interned)
        return {_key(verdict): verdict for verdict in verdicts}

    def _job(self, candidate: Candidate, repeat: int, gold: GoldRun | None) -> GradeJob:
        """The job of a candidate, with the harness's log layout."""
        model = _folder_name(candidate.model)
        folder = self._folder / self._logs / f"{model}.{candidate.sample}"
        return GradeJob(
            self._tests_of(self._instances[candidate.instance_id], candidate),
            candidate,
            folder / candidate.instance_id,
            repeat,
            gold,
        )


def require_decided(verdicts: Sequence[Verdict], max_faults: int | None = None) -> None:
    """Fail a stage that had infrastructure failures, so that it can be resumed.

    A candidate that runs out of memory, whose log shows an infrastructure failure, or
    that alone loses its sandbox, is masked but does not fail the stage: the patch itself
    may be the cause, so that every rerun would end the same way.

    Args:
        verdicts: All verdicts of the stage.
        max_faults: Number of candidates that may stay without a verdict; `None` means
            that there is no such setting.

    Raises:
        StageError: More candidates have infrastructure failures.
    """
    owed = [
        verdict
        for verdict in verdicts
        if verdict.status is Status.INFRA_ERROR
        and not (verdict.report or verdict.explained)
    ]
    if len(owed) > (max_faults or 0):
        hint = (
            "Fix the cause and run the same command again; existing verdicts are kept."
        )
        if max_faults is not None:
            hint += f" To mask them instead: --set grade.max_faults={len(owed)}"
        raise StageError(
            f"{len(owed)} of {len(verdicts)} candidates had infrastructure failures; "
            f"the first, {owed[0].instance_id}: {owed[0].status}, {owed[0].reason}.",
            hint=hint,
        )


def _folder_name(model: str) -> str:
    """A safe, short and unique directory name for a model."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", model).lstrip(".")[:100]
    return safe if safe == model else f"{safe}.{digest(model)[:8]}"


def _interned(value: Any, strings: dict[str, str]) -> Any:
    """Intern the strings of a value: the reports of an instance repeat its test names."""
    if isinstance(value, str):
        return strings.setdefault(value, value)
    if isinstance(value, list):
        return [_interned(item, strings) for item in value]
    if isinstance(value, dict):
        return {key: _interned(item, strings) for key, item in value.items()}
    return value


def _verdict(candidate: Candidate, outcome: Outcome, log: str) -> Verdict:
    return Verdict(
        instance_id=candidate.instance_id,
        sample=candidate.sample,
        model=candidate.model,
        status=outcome.status,
        patch=digest(candidate.patch),
        report=dict(outcome.report),
        flags=outcome.flags,
        reason=outcome.reason,
        log=log,
        explained=outcome.explained,
    )


def _timing(job: GradeJob, outcome: Outcome) -> dict[str, Any]:
    seconds = outcome.seconds or {}
    return {
        "instance_id": job.candidate.instance_id,
        "model": job.candidate.model,
        "sample": job.candidate.sample,
        "answered_by": outcome.answered_by,
        **{phase: round(value, 3) for phase, value in seconds.items()},
    }


def _key(about: Candidate | Verdict, once_per_patch: bool = False) -> Key:
    """The key of a verdict, or of candidates that share a run: those of equal patches."""
    patch = about.patch if isinstance(about, Verdict) else digest(about.patch)
    if once_per_patch:
        return ("", about.instance_id, 0, patch)
    return (about.model, about.instance_id, about.sample, patch)
