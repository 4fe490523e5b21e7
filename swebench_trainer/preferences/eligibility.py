"""Which candidates may be chosen or rejected, and what instances lack for a pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from swebench_trainer.contracts import Bottlenecks, GradedInstance, MissingForPair
from swebench_trainer.preferences.normalize import changed_lines
from swebench_trainer.preferences.tiers import (
    TIERS,
    share_of_passing_tests,
    tier_of,
    ungraded_tier,
)
from swebench_trainer.recipe.models import PairsTable
from swebench_trainer.types import AnswerRef, Candidate, Pair, Status, Tier, Verdict

T = TypeVar("T")

Graded = tuple[Candidate, Verdict]
Reject = tuple[Candidate, Tier]

Keys = set[tuple[str, object]]
"""Identities of an answer, of one or several kinds; answers that share one are repeats."""


def passes(instance: GradedInstance) -> list[Graded]:
    """Trusted passes by sample, without repeats."""
    trusted = [g for g in _expressible(instance) if g[1].trusted_pass]
    return distinct(instance, trusted, set())


def failures(instance: GradedInstance) -> list[Reject]:
    """Decided failures, the hardest first, then by sample, without repeats.

    Repeats of a pass or of gold are left out as well: there the tests are flaky, or do
    not test the issue.
    """
    failed = sorted(
        (TIERS.index(tier), -share_of_passing_tests(verdict), number, candidate)
        for number, (candidate, verdict) in enumerate(_expressible(instance))
        if is_failure(verdict) and (tier := tier_of(verdict))
    )
    known = pass_keys(instance) | gold_keys(instance)
    return distinct(instance, [(c, TIERS[rank]) for rank, *_, c in failed], known)


def differing(instance: GradedInstance) -> list[Reject]:
    """Ungraded candidates that do not repeat gold, patches first, then by sample."""
    tiers = [(c, ungraded_tier(c)) for c in instance.ungraded if is_expressible(c)]
    tiers.sort(key=lambda r: (TIERS.index(r[1]), r[0].sample, r[0].model))
    return distinct(instance, tiers, gold_keys(instance))


def is_failure(verdict: Verdict) -> bool:
    """Whether the verdict can be used as a failure: decided, and not flaky."""
    return tier_of(verdict) is not None and not verdict.flaky


def is_expressible(candidate: Candidate) -> bool:
    """Whether the text has the patch; the answer format cannot express some patches."""
    return bool(candidate.text.strip()) or not candidate.patch.strip()


def pass_rate(instance: GradedInstance) -> float | None:
    """Share of trusted passes among passes and failures; `None` without either."""
    passed = sum(v.trusted_pass for _, v in instance.graded)
    failed = sum(is_failure(v) for _, v in instance.graded)
    return passed / (passed + failed) if passed + failed else None


def distinct(
    instance: GradedInstance, found: Iterable[tuple[Candidate, T]], known: Keys
) -> list[tuple[Candidate, T]]:
    """Leaves out candidates that repeat an earlier or a known one."""
    seen = set(known)
    kept = []
    for candidate, about in found:
        keys = identity_keys(instance, candidate)
        if seen.isdisjoint(keys):
            kept.append((candidate, about))
        seen |= keys
    return kept


def pass_keys(instance: GradedInstance) -> Keys:
    """Identities of all passes, trusted or not."""
    keys: Keys = set()
    for candidate, verdict in instance.graded:
        if verdict.reward == 1:
            keys |= _all_keys(instance, candidate.text, candidate.patch)
    return keys


def gold_keys(instance: GradedInstance) -> Keys:
    """Identities of gold."""
    return _all_keys(instance, instance.gold, instance.instance.patch)


def _expressible(instance: GradedInstance) -> list[Graded]:
    """Graded candidates that the answer format can express, by sample."""
    found = [g for g in instance.graded if is_expressible(g[0])]
    return sorted(found, key=lambda g: (g[0].sample, g[0].model))


def identity_keys(instance: GradedInstance, candidate: Candidate) -> Keys:
    """Identities of a candidate, by the most exact kind that is available."""
    keys: Keys = {("text", candidate.text)} | _if_any("patch", candidate.patch)
    if candidate.patch in instance.forms and instance.instance.patch in instance.forms:
        return keys | {("form", instance.forms[candidate.patch])}
    keys.add(("words", _without_whitespace(candidate.text)))
    return keys | _if_any("lines", changed_lines(candidate.patch))


def _all_keys(instance: GradedInstance, text: str, patch: str) -> Keys:
    """Identities of every kind, for the answers that all others are compared with."""
    keys = _if_any("text", text) | _if_any("words", _without_whitespace(text))
    keys |= _if_any("patch", patch) | _if_any("lines", changed_lines(patch))
    return keys | _if_any("form", instance.forms.get(patch))


def _if_any(kind: str, value: object) -> Keys:
    return {(kind, value)} if value else set()


def _without_whitespace(text: str) -> str:
    return "".join(text.split())


def only_chosen(
    instance: GradedInstance, strategy: str, chosen: Candidate | None
) -> Pair:
    """A pass, or gold if that is `None`, as a good answer without a bad one."""
    source = AnswerRef.of_sample(chosen.sample) if chosen else AnswerRef.gold()
    return Pair(
        instance_id=instance.instance.instance_id,
        prompt=instance.prompt,
        chosen=chosen.text if chosen else instance.gold,
        rejected=None,
        strategy=strategy,
        chosen_source=source,
        rejected_source=AnswerRef(),
        tier=Status.RESOLVED,
        chosen_model=chosen.model if chosen else "",
    )


def preference(
    instance: GradedInstance, strategy: str, chosen: Candidate | None, reject: Reject
) -> Pair:
    """The pair that prefers `chosen`, or gold if that is `None`, to a reject."""
    rejected, tier = reject
    return replace(
        only_chosen(instance, strategy, chosen),
        rejected=rejected.text,
        rejected_source=AnswerRef.of_sample(rejected.sample),
        tier=tier,
        rejected_model=rejected.model,
    )


def only_rejected(instance: GradedInstance, strategy: str, reject: Reject) -> Pair:
    """A failure as a bad answer without a good one."""
    pair = preference(instance, strategy, None, reject)
    return replace(pair, chosen=None, chosen_source=AnswerRef())


def bottlenecks(graded: Iterable[GradedInstance]) -> Bottlenecks:
    """What instances lack, for strategies that do not report it themselves."""
    return Bottlenecks(missing_counts(map(missing_for_pair, graded)))


def parse_limits(
    reported: Bottlenecks | Mapping[str, int], table: PairsTable
) -> Bottlenecks:
    """The report of any strategy (`LimitTeller.limits`) in one form.

    A plain mapping is split into keys of the table, such as `max_format` or `mix.fails`,
    and other reasons, which are opaque.
    """
    if isinstance(reported, Bottlenecks):
        return reported
    keys = type(table).model_fields
    held = {key: n for key, n in reported.items() if key.partition(".")[0] in keys}
    other = {reason: n for reason, n in reported.items() if reason not in held}
    return Bottlenecks(held_back=held, other=other)


def missing_counts(
    missing: Iterable[MissingForPair | None],
) -> Mapping[MissingForPair, int]:
    """Number of instances by what they lack; those that lack nothing do not count."""
    return Counter(filter(None, missing))


def missing_for_pair(instance: GradedInstance) -> MissingForPair | None:
    """What the instance lacks for a pair of its own candidates.

    Strategies that prefer gold need no pass.
    """
    decided = [v for _, v in instance.graded if v.reward is not None]
    failed = [g for g in instance.graded if is_failure(g[1])]
    if not instance.graded:
        return MissingForPair.NO_CANDIDATES
    if not decided:
        return MissingForPair.NO_DECIDED_CANDIDATE
    if all(verdict.reward == 1 for verdict in decided):
        return MissingForPair.NO_FAILURE
    if not failed:
        return MissingForPair.NO_RELIABLE_FAILURE
    if not any(is_expressible(candidate) for candidate, _ in failed):
        return MissingForPair.NO_EXPRESSIBLE_FAILURE
    if not distinct(instance, failed, pass_keys(instance)):
        return MissingForPair.FAILURES_REPEAT_PASSES
    if not failures(instance):
        return MissingForPair.FAILURES_REPEAT_GOLD
    if passes(instance):
        return None
    if not instance.gold:
        return MissingForPair.NO_PASS_NO_GOLD
    flagged = any(verdict.reward == 1 for verdict in decided)
    return MissingForPair.NO_TRUSTED_PASS if flagged else MissingForPair.NO_PASS
