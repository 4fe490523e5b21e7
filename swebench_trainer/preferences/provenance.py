"""From a pair back to the verdicts that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.types import AnswerRef, Candidate, Pair

Logs = Mapping[tuple[str, str, int], str]
"""Directory of logs by model, instance id and sample, relative to the run directory."""


def traced(
    pairs: Sequence[Pair],
    graded: Sequence[GradedInstance],
    logs: Logs,
    gold_logs: Mapping[str, str],
) -> list[Pair]:
    """Adds to each pair who wrote its answers and where the logs of their tests are.

    A strategy need not name the writers where a sample number has only one.
    """
    writers = {
        item.instance.instance_id: _writers(
            [*(candidate for candidate, _ in item.graded), *item.ungraded]
        )
        for item in graded
    }

    def origin(pair: Pair, source: AnswerRef, model: str) -> tuple[str, str]:
        name = pair.instance_id
        if source.is_gold:
            return "", gold_logs.get(name, "")
        if source.sample is None:
            return model, ""
        known = writers.get(name, {}).get(source.sample, [])
        model = model or (known[0] if len(known) == 1 else "")
        return model, logs.get((model, name, source.sample), "")

    found = []
    for pair in pairs:
        chosen = origin(pair, pair.chosen_source, pair.chosen_model)
        rejected = origin(pair, pair.rejected_source, pair.rejected_model)
        found.append(
            replace(
                pair,
                chosen_model=chosen[0],
                chosen_log=chosen[1],
                rejected_model=rejected[0],
                rejected_log=rejected[1],
            )
        )
    return found


def _writers(candidates: Sequence[Candidate]) -> dict[int, list[str]]:
    """The models that have written each sample number."""
    found: dict[int, list[str]] = {}
    for candidate in candidates:
        found.setdefault(candidate.sample, []).append(candidate.model)
    return found
