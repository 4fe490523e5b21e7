"""Which candidates of an instance may be chosen, and which may be rejected."""

from __future__ import annotations

from collections.abc import Iterable

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.types import Candidate, Pair, Status, Verdict

TIERS = (
    Status.UNRESOLVED,
    Status.NOT_APPLIED,
    Status.MALFORMED,
    Status.NO_PATCH,
)
"""Statuses of a decided failure, the hardest to tell from a success first."""

Graded = tuple[Candidate, Verdict]


def passes(instance: GradedInstance) -> list[Graded]:
    """Trusted passes by sample; equal ones once."""
    return _distinct(g for g in _by_sample(instance) if g[1].trusted_pass)


def failures(instance: GradedInstance) -> list[Graded]:
    """Decided failures, the hardest first, then by sample; equal ones once.

    What a pass has written too is left out: there the tests are flaky.
    """
    passed = {key for c, v in instance.graded if v.reward == 1 for key in _keys(c)}
    failed = [g for g in _by_sample(instance) if is_failure(g[1])]
    failed.sort(key=lambda g: TIERS.index(g[1].status))
    return _distinct(failed, passed)


def is_failure(verdict: Verdict) -> bool:
    """Whether the verdict is a lesson: a failure that no other run contradicts.

    A timeout is none, even one that is the patch's doing: how slow is too slow
    depends on the machine.
    """
    return verdict.status in TIERS and not verdict.flaky


def _by_sample(instance: GradedInstance) -> list[Graded]:
    return sorted(instance.graded, key=lambda g: (g[0].sample, g[0].model))


def _distinct(
    graded: Iterable[Graded], known: Iterable[tuple[str, str]] = ()
) -> list[Graded]:
    """Leaves out whoever repeats a text or a patch of an earlier or known one."""
    seen = set(known)
    kept = []
    for candidate, verdict in graded:
        keys = _keys(candidate)
        if seen.isdisjoint(keys):
            kept.append((candidate, verdict))
        seen |= keys
    return kept


def _keys(candidate: Candidate) -> set[tuple[str, str]]:
    keys = {("text", candidate.text)}
    return keys | {("patch", candidate.patch)} if candidate.patch else keys


def like_gold(candidate: Candidate, instance: GradedInstance) -> bool:
    """Whether the candidate is gold again but for white space and context."""
    same_text = candidate.text.split() == instance.gold.split()
    patch = _changed_lines(candidate.patch)
    return same_text or bool(patch and patch == _changed_lines(instance.instance.patch))


def _changed_lines(patch: str) -> list[str]:
    """Added and deleted lines and the names of their files, without white space."""
    squeezed = ("".join(line.split()) for line in patch.split("\n"))
    return [line for line in squeezed if line[:1] in ("+", "-") and len(line) > 1]


def alone(instance: GradedInstance, strategy: str, good: Graded | None) -> Pair:
    """A pass, or gold if that is `None`, that is compared with nothing."""
    return Pair(
        instance_id=instance.instance.instance_id,
        prompt=instance.prompt,
        chosen=good[0].text if good else instance.gold,
        rejected=None,
        strategy=strategy,
        chosen_source=f"sample:{good[0].sample}" if good else "gold",
        rejected_source="",
        tier=Status.RESOLVED,
    )


def preference(
    instance: GradedInstance, strategy: str, chosen: Graded | None, rejected: Graded
) -> Pair:
    """The pair in which `chosen`, or gold if that is `None`, is preferred."""
    candidate, verdict = rejected
    return Pair(
        instance_id=instance.instance.instance_id,
        prompt=instance.prompt,
        chosen=chosen[0].text if chosen else instance.gold,
        rejected=candidate.text,
        strategy=strategy,
        chosen_source=f"sample:{chosen[0].sample}" if chosen else "gold",
        rejected_source=f"sample:{candidate.sample}",
        tier=verdict.status,
    )
