"""What instances lack for a pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from swebench_trainer.contracts import Bottlenecks, GradedInstance, MissingForPair
from swebench_trainer.preferences.eligibility import (
    distinct,
    failures,
    is_expressible,
    is_failure,
    pass_keys,
    passes,
)
from swebench_trainer.recipe.models import PairsTable


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
    return Counter(reason for reason in missing if reason)


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
