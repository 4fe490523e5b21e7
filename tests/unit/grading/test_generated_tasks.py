"""Generated tasks in the sandbox that their recipe uses."""

from __future__ import annotations

from pathlib import Path

from sandboxes import require_sandbox

from swebench_trainer.contracts import GradeJob
from swebench_trainer.data.generated.source import GeneratedSource, GeneratedTable
from swebench_trainer.grading.namespace.grader import NamespaceGrader, NamespaceTable
from swebench_trainer.grading.official import NOOP
from swebench_trainer.types import Candidate, Status


def test_gold_resolves_and_no_op_does_not(tmp_path: Path) -> None:
    require_sandbox()
    table = GeneratedTable(use="generated", heldout=3, graded=1, count=1)
    jobs = [
        GradeJob(
            instance,
            Candidate(instance.instance_id, 0, name, "", patch, extraction=name),
            tmp_path / name / instance.instance_id,
        )
        for instance in GeneratedSource(table).load().instances
        for name, patch in (("gold", instance.patch), (NOOP, ""))
    ]
    grader = NamespaceGrader(NamespaceTable(use="namespace", timeout=60, workers=2))
    grader.check([job.instance for job in jobs])
    ended = [(job.candidate.model, out.status) for job, out in grader.grade(jobs)]
    grader.close()
    assert (
        sorted(ended)
        == [("gold", Status.RESOLVED)] * 4 + [(NOOP, Status.UNRESOLVED)] * 4
    )
