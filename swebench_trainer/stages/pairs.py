"""pairs: preferences from graded candidates."""

from __future__ import annotations

from collections import Counter

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.errors import StageError
from swebench_trainer.preferences.counts import limits
from swebench_trainer.stages import Figures, StageContext
from swebench_trainer.store.jsonl import write_json, write_rows
from swebench_trainer.types import UNANSWERED, Candidate, SftRow, Verdict, as_row


def run(context: StageContext) -> Figures:
    """Writes `pairs.jsonl` and `stats.json`.

    Raises:
        StageError: No pair could be made; the message counts the reasons.
    """
    table = context.recipe.pairs
    assert table is not None  # the pipeline
    graded = _graded(context)
    strategy = context.plugins.registry.create("pair strategy", table)
    made = list(strategy.pairs(graded))
    dropped = context.plugins.dropped_pairs(made)
    pairs = [pair for number, pair in enumerate(made) if number not in dropped]
    counts = limits(graded)
    write_rows(context.dir.file("pairs.jsonl"), map(as_row, pairs))
    write_json(
        context.dir.file("stats.json"),
        {
            "pairs": len(pairs),
            "by tier": Counter(pair.tier for pair in pairs),
            "by chosen": Counter(
                pair.chosen_source.split(":")[0] or "none" for pair in pairs
            ),
            "by instance": Counter(pair.instance_id for pair in pairs),
            "dropped by plugins": Counter(dropped.values()),
            "limits": counts,
        },
    )
    if not pairs:
        raise StageError(_why_none(len(graded), counts, len(made)))
    gold = sum(pair.chosen_source == "gold" for pair in pairs)
    issues = len({pair.instance_id for pair in pairs})
    return {"pairs": len(pairs), "issues": issues, "gold as chosen": gold}


def _graded(context: StageContext) -> list[GradedInstance]:
    """Each admitted training instance with its decided candidates."""
    prompts = context.prompts()
    # Where prepare has made none, its dropped.jsonl says why.
    taught = context.read("prepare", "sft.jsonl", SftRow)
    gold = {row.instance_id: row.completion for row in taught}
    verdicts = {
        (v.model, v.instance_id, v.sample): v
        for v in context.read("grade", "verdicts.jsonl", Verdict)
    }
    candidates: dict[str, list[tuple[Candidate, Verdict]]] = {}
    for candidate in context.read("generate", "candidates.jsonl", Candidate):
        key = (candidate.model, candidate.instance_id, candidate.sample)
        # A prompt that nobody answered says nothing about answers.
        if key in verdicts and candidate.finish not in UNANSWERED:
            pair = (candidate, verdicts[key])
            candidates.setdefault(candidate.instance_id, []).append(pair)
    graded = []
    for instance in context.admitted():
        if instance.split != "train" or instance.instance_id not in candidates:
            continue
        graded.append(
            GradedInstance(
                instance=instance,
                prompt=prompts[instance.instance_id],
                gold=gold.get(instance.instance_id, ""),
                graded=tuple(candidates[instance.instance_id]),
            )
        )
    return graded


def _why_none(instances: int, counts: dict[str, int], made: int) -> str:
    if made:
        return f"Plugins dropped all {made} pairs."
    reasons = "; ".join(f"{reason}: {count}" for reason, count in counts.items())
    return f"No pair could be made from {instances} instances. {reasons}."
