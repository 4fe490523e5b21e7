"""pairs: preferences from graded candidates."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swebench_trainer.answers.forms import render_answer
from swebench_trainer.contracts import GradedInstance, Tree
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.plugins.faults import plugin_fault
from swebench_trainer.preferences.counts import limits
from swebench_trainer.preferences.normal import form_in
from swebench_trainer.preferences.provenance import traced
from swebench_trainer.preferences.rules import BrokenRuleError, PairRules
from swebench_trainer.preferences.surface import judge
from swebench_trainer.preferences.tally import patches_of, tally
from swebench_trainer.recipe.models import PairsTable
from swebench_trainer.reporting.metrics import wilson
from swebench_trainer.stages.context import GOLD, StageContext, StageSummary
from swebench_trainer.store.jsonl import write_json, write_rows
from swebench_trainer.types import (
    UNANSWERED,
    Candidate,
    Instance,
    Pair,
    SftRow,
    Tier,
    Verdict,
    as_row,
)

LEAST_LEFT = 0.1
"""Share of the possible pairs below which a balance is no balance any more."""

MANY = 100
"""Possible pairs from which that is judged: the pairs of a small run are few anyway."""

Verdicts = Mapping[tuple[str, str, int], Verdict]
"""By model, instance id and sample."""


@dataclass(frozen=True)
class Preferences:
    """What a strategy makes of the candidates of a run.

    Attributes:
        instances: How many instances it was given.
        made: How many pairs it made, before plugins dropped some.
        stats: What `stats.json` says of the pairs.
    """

    pairs: list[Pair]
    instances: int
    made: int
    stats: dict[str, Any]


def run(context: StageContext) -> StageSummary:
    """Writes `pairs.jsonl` and `stats.json`.

    Raises:
        StageError: No pair could be made, or hardly any of those that could; the
            message counts the reasons.
    """
    found = prefer(context)
    write_json(context.dir.file("stats.json"), found.stats)
    if not found.pairs:
        raise StageError(
            _why_none(found),
            hint="[pairs] may be changed and the same command run again; "
            "`swebench-train pairs RECIPE --dry-run` shows what a change would bring.",
        )
    require_balance(found)
    write_rows(context.dir.file("pairs.jsonl"), map(as_row, found.pairs))
    return _figures(found)


def prefer(context: StageContext) -> Preferences:
    """Makes the pairs from the files of the earlier stages; writes nothing."""
    table = context.table(PairsTable)
    registry = context.plugins.registry
    strategy = registry.create("pair strategy", table)
    verdicts = _verdicts(context)
    graded = _graded(context, verdicts)
    logs = {key: f"stages/grade/{v.log}" for key, v in verdicts.items() if v.log}
    try:
        rules = PairRules.of_table(table)
        sound = list(rules.checked(strategy.pairs(graded), graded))
    except BrokenRuleError as error:
        who = registry.get("pair strategy", table.use).who
        raise plugin_fault(who, error.problem) from error
    made = traced(sound, graded, logs, _gold_logs(context))
    dropped = context.plugins.dropped_pairs(made)
    pairs = [pair for number, pair in enumerate(made) if number not in dropped]
    teller = getattr(strategy, "limits", limits)
    stats = {
        "strategy": table.use,
        "graded": table.needs_grades,
        "pairs": len(pairs),
        "instances": len(graded),
        **tally(pairs, graded),
        "surface": _surface(pairs),
        "dropped by plugins": Counter(dropped.values()),
        "limits": dict(teller(graded)),
    }
    return Preferences(pairs, len(graded), len(made), stats)


def _surface(pairs: Sequence[Pair]) -> dict[str, Any] | None:
    found = judge(pairs)
    if found is None:
        return None
    return {
        "pairs": found.pairs,
        "told apart": round(found.right / found.pairs, 4),
        "ci95": [round(x, 4) for x in wilson(round(found.right), found.pairs)],
        "chosen has more": dict(found.higher),
    }


def _held_back(found: Preferences) -> dict[str, int]:
    """How many pairs each bound of the balance has left out."""
    bounds = ("max_format", "length_skew", "mix.")
    limits = found.stats["limits"].items()
    return {key: count for key, count in limits if key.startswith(bounds)}


def require_balance(found: Preferences) -> None:
    """Stops where the balance is met by hardly any of the pairs that could be made.

    Raises:
        StageError: The key that holds most of them back.
    """
    held = _held_back(found)
    left, possible = len(found.pairs), len(found.pairs) + sum(held.values())
    if possible < MANY or left >= LEAST_LEFT * possible:
        return
    key = max(held, key=lambda name: held[name])
    raise StageError(
        f"Of {possible} pairs that could be made, [pairs] {key} leaves {left}: "
        "nearly all of them are of one kind, which it bounds.",
        hint=f"Raise [pairs] {key} to take them as they are and run the same command "
        "again, or have more answers written ([generate] samples).",
    )


def _figures(found: Preferences) -> StageSummary:
    pairs = found.pairs
    figures: StageSummary = {
        "pairs": len(pairs),
        "issues": len({pair.instance_id for pair in pairs}),
        "gold as chosen": sum(pair.chosen_source.is_gold for pair in pairs),
    }
    for key, count in _held_back(found).items():
        figures[f"held back by {key}"] = count
    if guessed := sum(pair.tier == Tier.UNGRADED for pair in pairs):
        figures["rejects that nobody graded"] = guessed
    if surface := found.stats["surface"]:
        low, high = surface["ci95"]
        figures["told apart by their surface"] = (
            f"{surface['told apart']:.0%} ({low:.0%} to {high:.0%}; 50% is blind)"
        )
    return figures


def _graded(context: StageContext, verdicts: Verdicts) -> list[GradedInstance]:
    """Each admitted training instance with its candidates, and what their patches make."""
    table = context.table(PairsTable)
    prompts = context.prompts()
    # Where prepare has made none, its dropped.jsonl says why.
    taught = context.read("prepare", "sft.jsonl", SftRow)
    gold = {row.instance_id: row.completion for row in taught}
    candidates = _candidates(context)
    graded = []
    with context.files() as tree:
        for instance in context.admitted():
            name = instance.instance_id
            mine = candidates.get(name, []) if instance.split == "train" else []
            known = [(c, verdicts[_key(c)]) for c in mine if _key(c) in verdicts]
            item = GradedInstance(
                instance=instance,
                prompt=prompts[name],
                gold=gold.get(name, ""),
                graded=tuple(known),
                ungraded=() if table.needs_grades else tuple(mine),
            )
            if item.graded or item.ungraded:
                files = _files(tree, instance) if patches_of(item) else None
                graded.append(_looked_at(context, item, files))
    return graded


def _candidates(context: StageContext) -> dict[str, list[Candidate]]:
    """The candidates of each instance."""
    found: dict[str, list[Candidate]] = {}
    for candidate in context.read("generate", "candidates.jsonl", Candidate):
        # A prompt that nobody answered says nothing about answers.
        if candidate.finish not in UNANSWERED:
            found.setdefault(candidate.instance_id, []).append(candidate)
    return found


def _files(tree: Callable[[Instance], Tree | None], instance: Instance) -> Tree | None:
    """The repository's files; none where they are no longer to be had."""
    try:
        return tree(instance)
    except DataError:  # the verdicts are there, and often on another machine
        return None


def _looked_at(
    context: StageContext, item: GradedInstance, tree: Tree | None
) -> GradedInstance:
    """Adds what needs the repository's files: forms of patches, patches as answers."""
    renders = context.table(PairsTable).renders
    forms, rendered = {}, {}
    for patch in sorted(patches_of(item) | {item.instance.patch}):
        if tree and (form := form_in(tree, patch)) is not None:
            forms[patch] = form
        if renders:
            rendered[patch] = _rendered(context, item.instance, patch, tree)
    return dataclasses.replace(item, forms=forms, rendered=rendered)


def _rendered(
    context: StageContext, instance: Instance, patch: str, tree: Tree | None
) -> str:
    """A patch as an answer; empty where the form cannot express it."""
    meant = dataclasses.replace(instance, patch=patch)
    prompt = context.recipe.prompt
    try:
        lines = prompt.context_of(instance.instance_id)
        return render_answer(prompt.answer, meant, tree, context=lines)
    except ValueError:
        return ""


def _verdicts(context: StageContext) -> Verdicts:
    """Every verdict on a candidate; none where the strategy does without."""
    if not context.table(PairsTable).needs_grades:
        return {}
    return {_key(v): v for v in context.read("grade", "verdicts.jsonl", Verdict)}


def _gold_logs(context: StageContext) -> dict[str, str]:
    """Where the logs of gold's first run are, from the run directory, by instance."""
    return {
        verdict.instance_id: f"stages/admit/{verdict.log}"
        for verdict in context.read("admit", "verdicts.jsonl", Verdict)
        if verdict.model == GOLD and verdict.sample == 0 and verdict.log
    }


def _key(about: Candidate | Verdict) -> tuple[str, str, int]:
    return about.model, about.instance_id, about.sample


def _why_none(found: Preferences) -> str:
    """Says why there is no pair."""
    if found.made:
        return f"Plugins dropped all {found.made} pairs."
    counts = found.stats["limits"].items()
    reasons = "; ".join(f"{reason}: {count}" for reason, count in counts)
    return f"No pair could be made from {found.instances} instances. {reasons}."
