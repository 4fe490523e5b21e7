"""grade: a verdict for every candidate, from the official harness."""

from __future__ import annotations

from collections import Counter

from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.stages import Figures, StageContext
from swebench_trainer.types import Candidate


def run(context: StageContext) -> Figures:
    """Writes `verdicts.jsonl`, `timings.jsonl` and the harness's logs.

    Raises:
        PrerequisiteError: The grader cannot work on this machine.
        StageError: The machine failed for some of the candidates.
    """
    table = context.recipe.grade
    assert table is not None  # the pipeline
    candidates = context.read("generate", "candidates.jsonl", Candidate)
    named = {candidate.instance_id for candidate in candidates}
    instances = [i for i in context.admitted() if i.instance_id in named]
    grader = context.plugins.registry.create("grader", table)
    try:
        grader.check(instances)
        ledger = Ledger(context.dir.path, instances, run_id=context.recipe.name)
        verdicts = ledger.grade(grader, candidates, context.done)
    finally:
        grader.close()
    require_decided(verdicts, table.max_faults)
    statuses = Counter(verdict.status.value for verdict in verdicts)
    flagged = sum(bool(verdict.flags) for verdict in verdicts)
    return {**dict(statuses.most_common()), **({"flagged": flagged} if flagged else {})}
