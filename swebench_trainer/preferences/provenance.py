"""Links from each pair to the models and logs behind its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.types import AnswerRef, Candidate, Pair

Logs = Mapping[tuple[str, str, int], str]
"""Log directory by model, instance id and sample, relative to the run directory."""


def traced(
    pairs: Sequence[Pair],
    graded: Sequence[GradedInstance],
    logs: Logs,
    gold_logs: Mapping[str, str],
) -> list[Pair]:
    """Adds to each pair the models of its answers and the logs of their tests.

    A strategy may leave a model empty if only one model has that sample number.
    """
    models = {item.instance.instance_id: _models(item.candidates) for item in graded}

    def origin(pair: Pair, source: AnswerRef, model: str) -> tuple[str, str]:
        name = pair.instance_id
        if source.is_gold:
            return "", gold_logs.get(name, "")
        if source.sample is None:
            return model, ""
        known = models.get(name, {}).get(source.sample, [])
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


def _models(candidates: Sequence[Candidate]) -> dict[int, list[str]]:
    """The models by sample number."""
    found: dict[int, list[str]] = {}
    for candidate in candidates:
        found.setdefault(candidate.sample, []).append(candidate.model)
    return found
