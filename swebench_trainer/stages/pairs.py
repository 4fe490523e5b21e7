"""pairs: makes preferences from graded candidates."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from swebench_trainer.answers.forms import render_answer
from swebench_trainer.contracts import Bottlenecks, GradedInstance, Tree
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.plugins.faults import plugin_fault
from swebench_trainer.preferences.balance import BalancedTable, length_gap
from swebench_trainer.preferences.eligibility import bottlenecks, parse_limits
from swebench_trainer.preferences.normalize import form_in
from swebench_trainer.preferences.rules import BrokenRuleError, PairRules, traced
from swebench_trainer.preferences.surface import classify
from swebench_trainer.preferences.trust import BELOW_TRUST, at_trust
from swebench_trainer.recipe.models import GradeTable, PairsTable
from swebench_trainer.reporting.metrics import wilson
from swebench_trainer.reporting.pairs import accuracy_label, bottleneck_lines
from swebench_trainer.reporting.summaries import (
    LengthCounts,
    PairStats,
    SurfaceAccuracy,
)
from swebench_trainer.stages.context import StageContext, StageSummary, gold_logs
from swebench_trainer.store.jsonl import write_json, write_rows
from swebench_trainer.types import (
    UNANSWERED,
    AnswerRef,
    Candidate,
    Instance,
    Pair,
    SftRow,
    Tier,
    Verdict,
    as_row,
)

MIN_SHARE_LEFT = 0.1
"""Minimum share of the possible pairs that the bounds of a balance must leave."""

MIN_POSSIBLE = 100
"""With fewer possible pairs that share is not checked."""

BALANCE_KEYS = BalancedTable.model_fields.keys() - PairsTable.model_fields.keys()
"""Keys of `[pairs]` that bound shares of pairs."""

Verdicts = Mapping[tuple[str, str, int], Verdict]
"""By model, instance id and sample."""


@dataclass(frozen=True)
class Preferences:
    """The pairs of a run.

    Attributes:
        made: Number of pairs before plugins dropped some.
        stats: Content of `stats.json`.
    """

    pairs: list[Pair]
    made: int
    stats: PairStats


def run(context: StageContext) -> StageSummary:
    """Write `pairs.jsonl` and `stats.json`.

    Raises:
        StageError: The strategy made no pairs, or the bounds of its balance left
            hardly any; the message lists the reasons.
    """
    found = prefer(context)
    write_json(context.dir.file("stats.json"), found.stats)
    if not found.pairs:
        raise StageError(
            _why_none(found),
            hint="Change [pairs] and run the same command again; "
            "`swebench-train pairs RECIPE --dry-run` shows the effect of a change.",
        )
    require_balance(found)
    write_rows(context.dir.file("pairs.jsonl"), map(as_row, found.pairs))
    return _figures(found)


def prefer(context: StageContext) -> Preferences:
    """Make the pairs from the files of earlier stages without writing them."""
    table = context.table(PairsTable)
    registry = context.plugins.registry
    strategy = registry.create(table)
    verdicts = _verdicts(context)
    graded = _graded(context, verdicts)
    logs = {key: f"stages/grade/{v.log}" for key, v in verdicts.items() if v.log}
    gold = gold_logs(context.input("admit"))
    golds = {name: f"stages/admit/{log}" for name, log in gold.items()}
    try:
        rules = PairRules.of_table(table)
        sound = list(rules.checked(strategy.pairs(graded), graded))
    except BrokenRuleError as error:
        who = registry.get("pair strategy", table.use).who
        raise plugin_fault(who, error.problem) from error
    made = traced(sound, graded, logs, golds)
    dropped = context.plugins.dropped_pairs(made)
    pairs = [pair for number, pair in enumerate(made) if number not in dropped]
    reported = getattr(strategy, "limits", bottlenecks)(graded)
    stats = pair_counts(
        pairs, graded, table, Counter(dropped.values()), parse_limits(reported, table)
    )
    return Preferences(pairs, len(made), stats)


def pair_counts(
    pairs: Sequence[Pair],
    graded: Sequence[GradedInstance],
    table: PairsTable,
    dropped: Mapping[str, int],
    found: Bottlenecks,
) -> PairStats:
    """Count pairs by strategy, tier, source of `chosen`, repository, issue and length.

    Args:
        pairs: The pairs.
        graded: The instances they were made from.
        table: Settings of the strategy.
        dropped: Number of pairs that plugins dropped, by reason.
        found: What kept the strategy from making more pairs.
    """
    repos = {item.instance.instance_id: item.instance.repo for item in graded}
    return PairStats(
        strategy=table.use,
        graded=table.needs_grades,
        pairs=len(pairs),
        instances=len(graded),
        by_strategy=Counter(pair.strategy for pair in pairs),
        by_tier=Counter(str(pair.tier) for pair in pairs),
        by_chosen=Counter(_kind(pair.chosen_source) for pair in pairs),
        by_repository=Counter(repos.get(pair.instance_id, "") for pair in pairs),
        by_instance=Counter(pair.instance_id for pair in pairs),
        restyled=sum(pair.restyled for pair in pairs),
        compared_by_changed_lines=sum(
            not _patches(item) <= item.forms.keys() for item in graded
        ),
        lengths=_lengths(pairs),
        surface=_surface(pairs),
        dropped_by_plugins=dropped,
        bottlenecks=found,
        below_trust=sum(
            BELOW_TRUST in verdict.flags
            for item in graded
            for _, verdict in item.graded
        ),
    )


def _kind(source: AnswerRef) -> str:
    if source.is_gold:
        return "gold"
    return "none" if source.sample is None else "sample"


def _lengths(pairs: Sequence[Pair]) -> LengthCounts:
    gaps = [
        length_gap(pair)
        for pair in pairs
        if pair.chosen is not None and pair.rejected is not None
    ]
    return LengthCounts(
        chosen_longer=sum(gap > 0 for gap in gaps),
        similar=gaps.count(0),
        rejected_longer=sum(gap < 0 for gap in gaps),
    )


def _surface(pairs: Sequence[Pair]) -> SurfaceAccuracy | None:
    found = classify(pairs)
    if found is None:
        return None
    low, high = wilson(round(found.correct), found.pairs)
    return SurfaceAccuracy(
        pairs=found.pairs,
        accuracy=round(found.correct / found.pairs, 4),
        ci95=(round(low, 4), round(high, 4)),
        chosen_higher=found.chosen_higher,
    )


def _held_back(found: Preferences) -> dict[str, int]:
    """Number of pairs that each bound of the balance has left out."""
    return {
        key: count
        for key, count in found.stats.bottlenecks.held_back.items()
        if key.partition(".")[0] in BALANCE_KEYS
    }


def require_balance(found: Preferences) -> None:
    """Fail if the bounds of the balance leave hardly any of the possible pairs.

    Raises:
        StageError: Names the key that held back the most pairs.
    """
    held = _held_back(found)
    left, possible = len(found.pairs), len(found.pairs) + sum(held.values())
    if possible < MIN_POSSIBLE or left >= MIN_SHARE_LEFT * possible:
        return
    key = max(held, key=lambda name: held[name])
    raise StageError(
        f"[pairs] {key} leaves {left} of {possible} possible pairs: nearly all of them "
        "are of one kind, whose share it bounds.",
        hint=f"Raise [pairs] {key} to accept that imbalance and run the same command "
        "again, or sample more answers ([generate] samples).",
    )


def _figures(found: Preferences) -> StageSummary:
    pairs = found.pairs
    figures: StageSummary = {
        "pairs": len(pairs),
        "issues": len({pair.instance_id for pair in pairs}),
        "gold as chosen": sum(pair.chosen_source.is_gold for pair in pairs),
    }
    if found.stats.below_trust:
        figures["passes below [pairs] trust"] = found.stats.below_trust
    for key, count in _held_back(found).items():
        figures[f"held back by {key}"] = count
    if guessed := sum(pair.tier == Tier.UNGRADED for pair in pairs):
        figures["ungraded rejects"] = guessed
    if surface := found.stats.surface:
        figures["surface-only classifier accuracy"] = accuracy_label(surface)
    return figures


def _graded(context: StageContext, verdicts: Verdicts) -> list[GradedInstance]:
    """Each admitted training instance with its candidates and normal forms."""
    table = context.table(PairsTable)
    prompts = context.prompts()
    # Gold that prepare could not express is missing; its dropped.jsonl has the reasons.
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
                files = _files(tree, instance) if _patches(item) else None
                graded.append(_with_forms(context, item, files))
    return graded


def _candidates(context: StageContext) -> dict[str, list[Candidate]]:
    """The candidates of each instance."""
    found: dict[str, list[Candidate]] = {}
    for candidate in context.read("generate", "candidates.jsonl", Candidate):
        # Unanswered prompts are not failures of the model.
        if candidate.finish not in UNANSWERED:
            found.setdefault(candidate.instance_id, []).append(candidate)
    return found


def _files(tree: Callable[[Instance], Tree | None], instance: Instance) -> Tree | None:
    """The repository's files; `None` if they are no longer available."""
    try:
        return tree(instance)
    except DataError:  # verdicts are often used on another machine than the files
        return None


def _patches(item: GradedInstance) -> set[str]:
    """The nonempty patches of an instance's candidates."""
    return {c.patch for c in item.candidates if c.patch.strip()}


def _with_forms(
    context: StageContext, item: GradedInstance, tree: Tree | None
) -> GradedInstance:
    """Add what needs the repository's files: normal forms, and patches as answers."""
    renders = context.table(PairsTable).renders
    forms, rendered = {}, {}
    for patch in sorted(_patches(item) | {item.instance.patch}):
        if tree and (form := form_in(tree, patch)) is not None:
            forms[patch] = form
        if renders:
            rendered[patch] = _rendered(context, item.instance, patch, tree)
    return dataclasses.replace(item, forms=forms, rendered=rendered)


def _rendered(
    context: StageContext, instance: Instance, patch: str, tree: Tree | None
) -> str:
    """A patch as an answer; empty if the answer format cannot express it."""
    patched = dataclasses.replace(instance, patch=patch)
    prompt = context.recipe.prompt
    try:
        lines = prompt.context_of(instance.instance_id)
        return render_answer(prompt.answer, patched, tree, context=lines)
    except ValueError:
        return ""


def _verdicts(context: StageContext) -> Verdicts:
    """Every verdict on a candidate; none if the strategy does not need them."""
    table = context.table(PairsTable)
    if not table.needs_grades:
        return {}
    verdicts = context.read("grade", "verdicts.jsonl", Verdict)
    if not context.table(GradeTable).counter_runs:
        return {_key(v): v for v in verdicts}
    return {_key(v): at_trust(v, table.trust) for v in verdicts}


def _key(about: Candidate | Verdict) -> tuple[str, str, int]:
    return about.model, about.instance_id, about.sample


def _why_none(found: Preferences) -> str:
    if found.made:
        return f"Plugins dropped all {found.made} pairs."
    lines = bottleneck_lines(found.stats.bottlenecks)
    reasons = "; ".join(f"{reason}: {count}" for reason, count in lines)
    return f"No pairs could be made from {found.stats.instances} instances. {reasons}."
