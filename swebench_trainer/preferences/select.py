"""Which candidates of an instance may be chosen, and which may be rejected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.normal import changed_lines
from swebench_trainer.preferences.tiers import (
    TIERS,
    share_right,
    tier_of,
    ungraded_tier,
)
from swebench_trainer.types import AnswerRef, Candidate, Pair, Status, Tier, Verdict

T = TypeVar("T")

Graded = tuple[Candidate, Verdict]
Reject = tuple[Candidate, Tier]

Keys = set[tuple[str, object]]
"""What an answer says, in one or several ways; who shares one with another repeats it."""


def passes(instance: GradedInstance) -> list[Graded]:
    """Trusted passes by sample; those that say the same once."""
    trusted = [g for g in _by_sample(instance) if g[1].trusted_pass and is_told(g[0])]
    return distinct(instance, trusted, set())


def failures(instance: GradedInstance) -> list[Reject]:
    """Decided failures, the hardest first, then by sample; those that say the same once.

    What says the same as a pass or as gold is left out: there the tests are flaky, or
    do not test the issue.
    """
    failed = [g for g in _by_sample(instance) if is_failure(g[1]) and is_told(g[0])]
    tiers = [(c, tier, share_right(v)) for c, v in failed if (tier := tier_of(v))]
    tiers.sort(key=lambda reject: (TIERS.index(reject[1]), -reject[2]))
    known = said_by_passes(instance) | said_by_gold(instance)
    return distinct(instance, [(c, tier) for c, tier, _ in tiers], known)


def differing(instance: GradedInstance) -> list[Reject]:
    """Ungraded candidates that are not gold again, patches first, then by sample."""
    told = [(c, ungraded_tier(c)) for c in instance.ungraded if is_told(c)]
    told.sort(key=lambda r: (TIERS.index(r[1]), r[0].sample, r[0].model))
    return distinct(instance, told, said_by_gold(instance))


def is_failure(verdict: Verdict) -> bool:
    """Whether the verdict is a lesson: a failure that no other run contradicts."""
    return tier_of(verdict) is not None and not verdict.flaky


def is_told(candidate: Candidate) -> bool:
    """Whether the text has the patch: the form may have no words for a recorded one."""
    return bool(candidate.text.strip()) or not candidate.patch.strip()


def pass_rate(instance: GradedInstance) -> float | None:
    """Share of trusted passes among those and failures; `None` without either."""
    passed = sum(v.trusted_pass for _, v in instance.graded)
    failed = sum(is_failure(v) for _, v in instance.graded)
    return passed / (passed + failed) if passed + failed else None


def distinct(
    instance: GradedInstance, found: Iterable[tuple[Candidate, T]], known: Keys
) -> list[tuple[Candidate, T]]:
    """Leaves out whoever says the same as an earlier or known one."""
    seen = set(known)
    kept = []
    for candidate, about in found:
        keys = said(instance, candidate)
        if seen.isdisjoint(keys):
            kept.append((candidate, about))
        seen |= keys
    return kept


def said_by_passes(instance: GradedInstance) -> Keys:
    """What the passes say, those included that are not believed."""
    keys: Keys = set()
    for candidate, verdict in instance.graded:
        if verdict.reward == 1:
            keys |= _said_every_way(instance, candidate.text, candidate.patch)
    return keys


def said_by_gold(instance: GradedInstance) -> Keys:
    """What gold says."""
    return _said_every_way(instance, instance.gold, instance.instance.patch)


def _by_sample(instance: GradedInstance) -> list[Graded]:
    return sorted(instance.graded, key=lambda g: (g[0].sample, g[0].model))


def said(instance: GradedInstance, candidate: Candidate) -> Keys:
    """What a candidate says, by the best that is known of it."""
    keys: Keys = {("text", candidate.text)} | _if_any("patch", candidate.patch)
    if candidate.patch in instance.forms and instance.instance.patch in instance.forms:
        return keys | {("form", instance.forms[candidate.patch])}
    lines = changed_lines(candidate.patch)
    return keys | {("words", _squeezed(candidate.text))} | _if_any("lines", lines)


def _said_every_way(instance: GradedInstance, text: str, patch: str) -> Keys:
    """For those with whom all others are compared, whatever is known of these."""
    keys = _if_any("text", text) | _if_any("words", _squeezed(text))
    keys |= _if_any("patch", patch) | _if_any("lines", changed_lines(patch))
    return keys | _if_any("form", instance.forms.get(patch))


def _if_any(way: str, what: object) -> Keys:
    return {(way, what)} if what else set()


def _squeezed(text: str) -> str:
    return "".join(text.split())


def alone(instance: GradedInstance, strategy: str, good: Candidate | None) -> Pair:
    """A pass, or gold if that is `None`, that is compared with nothing."""
    return Pair(
        instance_id=instance.instance.instance_id,
        prompt=instance.prompt,
        chosen=good.text if good else instance.gold,
        rejected=None,
        strategy=strategy,
        chosen_source=_ref(good),
        rejected_source=AnswerRef(),
        tier=Status.RESOLVED,
        chosen_model=good.model if good else "",
    )


def preference(
    instance: GradedInstance,
    strategy: str,
    chosen: Candidate | None,
    rejected: Candidate,
    tier: Tier,
) -> Pair:
    """The pair in which `chosen`, or gold if that is `None`, is preferred."""
    return Pair(
        instance_id=instance.instance.instance_id,
        prompt=instance.prompt,
        chosen=chosen.text if chosen else instance.gold,
        rejected=rejected.text,
        strategy=strategy,
        chosen_source=_ref(chosen),
        rejected_source=_ref(rejected),
        tier=tier,
        chosen_model=chosen.model if chosen else "",
        rejected_model=rejected.model,
    )


def _ref(candidate: Candidate | None) -> AnswerRef:
    return AnswerRef.of_sample(candidate.sample) if candidate else AnswerRef.gold()
