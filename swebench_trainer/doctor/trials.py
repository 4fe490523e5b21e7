"""Trial gradings: gold patches must pass, no-ops must fail, and the harness must agree."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from swebench_trainer.contracts import GradeJob, Grader
from swebench_trainer.doctor.machine import Finding
from swebench_trainer.grading.official import NOOP
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.reporting.listings import Trial
from swebench_trainer.stages.context import GOLD
from swebench_trainer.types import NO_OP, Candidate, Instance, Status

EXPECTED = {GOLD: Status.RESOLVED, NOOP: Status.UNRESOLVED}


def choose_sample(
    instances: Sequence[Instance], size: int, present: set[str]
) -> list[Instance]:
    """Draws gradable instances, preferring those whose images are present."""
    gradable = [instance for instance in instances if instance.gradable]
    random.Random(0).shuffle(gradable)  # noqa: S311 - not a secret
    gradable.sort(key=lambda instance: instance.image not in present)
    return gradable[:size]


def try_grader(
    plugins: Plugins, table: GradeTable, instances: Sequence[Instance]
) -> list[Trial]:
    """Grades the gold patch and a no-op of each instance, without the cache.

    Raises:
        PrerequisiteError: The grader does not work on this machine.
        DataError: The grader cannot grade the data.
    """
    table = table.model_copy(update={"cache": False})
    grader: Grader = plugins.registry.create("grader", table)
    with (
        closing(grader),
        tempfile.TemporaryDirectory(prefix="swebench-trainer-") as folder,
    ):
        grader.check(instances)
        jobs = [
            GradeJob(instance, candidate, Path(folder, candidate.model, str(number)))
            for number, instance in enumerate(instances)
            for candidate in _gold_and_noop(instance)
        ]
        trials = [
            Trial(
                job.instance.instance_id,
                job.candidate.model,
                outcome.status,
                sum((outcome.seconds or {}).values()),
                outcome.reason,
            )
            for job, outcome in grader.grade(jobs)
        ]
    return sorted(trials, key=lambda trial: (trial.instance_id, trial.patch))


def _gold_and_noop(instance: Instance) -> Iterator[Candidate]:
    name = instance.instance_id
    yield Candidate(name, 0, GOLD, text="", patch=instance.patch)
    yield Candidate(name, 0, NOOP, text="", patch="", extraction=NO_OP)


def judge_trials(use: str, trials: Sequence[Trial]) -> Iterator[Finding]:
    """Checks that gold passes and no-op fails; yields a finding for each that does not."""
    wrong = [trial for trial in trials if trial.status is not EXPECTED[trial.patch]]
    for trial in wrong:
        text = f"{trial.patch} of {trial.instance_id} is {trial.status}"
        text += f": {trial.reason}" if trial.reason else ""
        yield Finding("problem", use, text, "Exclude it: [data] exclude")
    if trials and not wrong:
        count = len(trials) // len(EXPECTED)
        text = f"gold passes and no-op fails on all {count} instances tried"
        yield Finding("ok", use, text)


def judge_parity(ours: Iterable[Trial], official: Iterable[Trial]) -> Finding:
    """Checks that our statuses equal the harness's."""
    pairs = list(zip(ours, official, strict=True))
    differ = [
        mine.instance_id for mine, theirs in pairs if mine.status != theirs.status
    ]
    if differ:
        text = f"{len(differ)} of {len(pairs)} statuses differ, for example {differ[0]}"
        return Finding("problem", "parity", text, "Please report this.")
    text = f"all {len(pairs)} statuses equal the harness's"
    if seconds := sum(mine.seconds for mine, _ in pairs):
        ratio = sum(theirs.seconds for _, theirs in pairs) / seconds
        text += f", {ratio:.1f} times as fast"
    return Finding("ok", "parity", text)
