"""admit: an instance gives labels only where gold passes and no-op fails, here."""

from __future__ import annotations

from collections.abc import Iterable

from swebench_trainer.errors import StageError
from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.grading.official import NOOP, OWED
from swebench_trainer.stages import Figures, StageContext
from swebench_trainer.store.jsonl import write_rows
from swebench_trainer.types import Candidate, Instance, Status, Verdict

GOLD = "gold"


def run(context: StageContext) -> Figures:
    """Writes `admission.jsonl`: each instance, admitted or the reason why not.

    Raises:
        PrerequisiteError: The grader cannot work on this machine.
        StageError: No instance is admitted, or the machine failed.
    """
    table = context.recipe.grade
    assert table is not None  # the pipeline runs this stage only with [grade]
    instances = context.instances()
    gradable = [i for i in instances if i.gradable]
    verdicts: list[Verdict] = []
    if gradable:
        grader = context.plugins.registry.create("grader", table)
        try:
            grader.check(gradable)
            ledger = Ledger(context.dir.path, gradable, run_id="admit")
            runs = list(_runs(gradable, table.admission_runs))
            verdicts = ledger.grade(grader, runs, context.done, once_per_patch=False)
            require_decided(verdicts, table.max_faults)
        finally:
            grader.close()
    rows = [_row(instance, verdicts) for instance in instances]
    write_rows(context.dir.file("admission.jsonl"), rows)
    admitted = sum(row["admitted"] is True for row in rows)
    if not admitted:
        first = next(row for row in rows)
        raise StageError(
            f"None of {len(rows)} instances is admitted; the first, "
            f"{first['instance_id']}: {first['reason']}.",
            hint=f"All reasons: {context.dir.file('admission.jsonl')}",
        )
    return {"admitted": admitted, "refused": len(rows) - admitted}


def _runs(instances: Iterable[Instance], times: int) -> Iterable[Candidate]:
    for instance in instances:
        name = instance.instance_id
        yield Candidate(name, 0, NOOP, text="", patch="", extraction=NOOP)
        for number in range(times):
            yield Candidate(name, number, GOLD, text="", patch=instance.patch)


def _row(instance: Instance, verdicts: Iterable[Verdict]) -> dict[str, object]:
    mine = [v for v in verdicts if v.instance_id == instance.instance_id]
    gold = [v.status for v in mine if v.model == GOLD]
    no_op = [v.status for v in mine if v.model == NOOP]
    reason = _refusal(mine, gold, no_op)
    return {
        "instance_id": instance.instance_id,
        "admitted": not reason,
        "gold": gold,
        "no_op": no_op,
        "reason": reason,
    }


def _refusal(mine: list[Verdict], gold: list[Status], no_op: list[Status]) -> str:
    """Why the instance gives no labels; empty if it does."""
    if not mine:
        return "the row has no tests to grade with"
    if faults := [v for v in mine if v.status in OWED]:
        return f"could not be graded: {faults[0].reason}"
    if failed := [status for status in gold if status is not Status.RESOLVED]:
        return f"gold is {failed[0]} in {len(failed)} of {len(gold)} runs"
    if Status.RESOLVED in no_op:
        return "the tests pass without any patch"
    if no_op != [Status.UNRESOLVED]:
        return f"no-op is {no_op[0]}, not unresolved"
    return ""
