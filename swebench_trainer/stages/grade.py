"""grade: a verdict for every candidate, and repeated runs where labels need them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from swebench_trainer.contracts import Grader
from swebench_trainer.grading.official import OWED
from swebench_trainer.grading.retest import (
    agrees,
    of_first_run,
    retest_row,
    runs_owed,
    with_retests,
)
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.reporting.metrics import wilson
from swebench_trainer.reporting.run_report import trust_label
from swebench_trainer.reporting.summaries import GradeSummary, verdict_counts
from swebench_trainer.stages.context import StageContext, StageSummary
from swebench_trainer.store.jsonl import write_json, write_rows
from swebench_trainer.types import Candidate, Instance, Verdict, as_row


def run(context: StageContext) -> StageSummary:
    """Write verdicts, repeated runs (`retests.jsonl`), a summary, and the logs.

    Raises:
        PrerequisiteError: The grader cannot run on this machine.
        StageError: Infrastructure failures left some candidates without a verdict.
    """
    table = context.table(GradeTable)
    candidates = context.read("generate", "candidates.jsonl", Candidate)
    named = {candidate.instance_id for candidate in candidates}
    instances = [i for i in context.admitted() if i.instance_id in named]
    with context.grader(instances) as grader:
        found = context.grade(grader, instances, candidates)
        first = [of_first_run(verdict) for verdict in found]
        owed = [runs_owed(verdict, table, context.recipe.seed) for verdict in first]
        again = _repeat(context, grader, instances, candidates, first, owed)
        repeated = [
            with_retests(verdict, again.get(place, ()), owed[place])
            for place, verdict in enumerate(first)
        ]
        verdicts = context.counter_run(grader, instances, candidates, repeated)
    write_rows(context.dir.file("verdicts.jsonl"), map(as_row, verdicts))
    retests = [retest_row(first[place], again[place]) for place in sorted(again)]
    write_rows(context.dir.file("retests.jsonl"), retests)
    summary = _summary(verdicts, retests, counter_runs=table.counter_runs)
    write_json(context.dir.file("summary.json"), summary)
    return _figures(summary)


def _repeat(
    context: StageContext,
    grader: Grader,
    instances: Sequence[Instance],
    candidates: Sequence[Candidate],
    first: Sequence[Verdict],
    owed: Sequence[int],
) -> Mapping[int, Sequence[Verdict]]:
    """Rerun candidates, each until its runs are complete or one disagrees.

    Returns:
        The repeated runs of each candidate, by its position.
    """
    again: dict[int, list[Verdict]] = defaultdict(list)
    for number in range(1, max(owed, default=0) + 1):
        places = [
            place
            for place, count in enumerate(owed)
            if count >= number and all(agrees(first[place], v) for v in again[place])
        ]
        chosen = [candidates[place] for place in places]
        part = f"again/{number}"
        verdicts = context.grade(grader, instances, chosen, part, repeat=number)
        for place, verdict in zip(places, verdicts, strict=True):
            again[place].append(verdict)
    return again


def _summary(
    verdicts: Sequence[Verdict],
    retests: Iterable[Mapping[str, Any]],
    *,
    counter_runs: bool,
) -> GradeSummary:
    # Candidates with equal patches share their runs, which count once.
    held = {
        (row["instance_id"], row["patch"]): row["holds"]
        for row in retests
        if not set(row["again"]) <= set(OWED)
    }
    flaky = sum(not holds for holds in held.values())
    return GradeSummary(
        **vars(verdict_counts(verdicts, counter_runs=counter_runs)),
        candidates=len(verdicts),
        retested=len(held),
        flaky=flaky,
        flaky_ci95=wilson(flaky, len(held)),
    )


def _figures(summary: GradeSummary) -> StageSummary:
    figures: StageSummary = dict(summary.statuses)
    if summary.suspicious:
        figures["suspicious passes"] = len(summary.suspicious)
    if summary.trust is not None:
        figures["trusted passes"] = trust_label(summary.trust)
    if summary.explained_timeouts:
        figures["explained timeouts"] = summary.explained_timeouts
    if summary.retested:
        low, high = summary.flaky_ci95
        figures["flaky"] = (
            f"{summary.flaky}/{summary.retested} ({low:.0%} to {high:.0%})"
        )
    return figures
