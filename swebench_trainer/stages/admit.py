"""admit: check that gold passes and no-op fails on this machine, for each instance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from swebench_trainer.errors import StageError
from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.grading.official import NOOP, OWED
from swebench_trainer.grading.trust.flags import NO_RESULT
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.stages.context import GOLD, StageContext, StageSummary
from swebench_trainer.store.jsonl import write_rows
from swebench_trainer.types import NO_OP, Candidate, Instance, Status, Verdict


def run(context: StageContext) -> StageSummary:
    """Write `admission.jsonl`: each instance, admitted or refused with a reason.

    Raises:
        PrerequisiteError: The grader does not work on this machine.
        StageError: No instance was admitted, or infrastructure errors remain.
    """
    table = context.table(GradeTable)
    instances = context.instances()
    gradable = [i for i in instances if i.gradable]
    verdicts: list[Verdict] = []
    if gradable:
        with context.grader(gradable) as grader:
            ledger = Ledger(context.dir.path, gradable, run_id="admit")
            verdicts = ledger.grade(
                grader,
                list(_runs(gradable, table.admission_runs)),
                context.done,
                once_per_patch=False,
                repeat=lambda candidate: candidate.sample,
            )
        require_decided(verdicts, table.max_faults)
    by_id: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_id[verdict.instance_id].append(verdict)
    rows = [_row(instance, by_id[instance.instance_id]) for instance in instances]
    write_rows(context.dir.file("admission.jsonl"), rows)
    admitted = sum(row["admitted"] is True for row in rows)
    if not admitted:
        first = rows[0]
        raise StageError(
            f"None of {len(rows)} instances was admitted; the first, "
            f"{first['instance_id']}: {first['reason']}.",
            hint=f"All reasons: {context.dir.file('admission.jsonl')}",
        )
    return {"admitted": admitted, "refused": len(rows) - admitted}


def _runs(instances: Iterable[Instance], times: int) -> Iterable[Candidate]:
    for instance in instances:
        name = instance.instance_id
        yield Candidate(name, 0, NOOP, text="", patch="", extraction=NO_OP)
        for number in range(times):
            yield Candidate(name, number, GOLD, text="", patch=instance.patch)


def _row(instance: Instance, mine: Sequence[Verdict]) -> dict[str, object]:
    gold = [v for v in mine if v.model == GOLD]
    no_op = [v.status for v in mine if v.model == NOOP]
    reason = instance.ungradable or _refusal(mine, [v.status for v in gold], no_op)
    return {
        "instance_id": instance.instance_id,
        "admitted": not reason,
        "gold": [v.status for v in gold],
        # Not a reason to refuse: gold may edit files that raise flags.
        "gold_flags": sorted({flag for v in gold for flag in v.flags}),
        "no_op": no_op,
        "reason": reason,
    }


def _refusal(
    mine: Sequence[Verdict], gold: Sequence[Status], no_op: Sequence[Status]
) -> str:
    """Why the instance is not admitted; empty if it is."""
    if faults := [v for v in mine if v.status in OWED]:
        return f"could not be graded: {faults[0].reason}"
    failed = [status for status in gold if status is not Status.RESOLVED]
    if failed and len(failed) < len(gold):
        passed = len(gold) - len(failed)
        return f"gold is flaky: resolved in {passed} of {len(gold)} runs"
    if failed:
        return f"gold is {failed[0]} in {len(failed)} of {len(gold)} runs"
    if any(NO_RESULT in verdict.flags for verdict in mine if verdict.model == GOLD):
        return "gold passes, but a FAIL_TO_PASS test has no result in the log"
    if Status.RESOLVED in no_op:
        return "the tests pass without any patch"
    if list(no_op) != [Status.UNRESOLVED]:
        return f"no-op is {no_op[0]}, not unresolved"
    return ""
