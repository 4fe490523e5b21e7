"""Tiers of rejects, their shares, and the balance of lengths."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from swebench_trainer.contracts import Bottlenecks, GradedInstance, MissingForPair
from swebench_trainer.errors import StageError
from swebench_trainer.preferences.balance import (
    BalancedTable,
    Mix,
    balanced,
    length_gap,
)
from swebench_trainer.preferences.strategies import (
    ApiRejects,
    ApiRejectsTable,
    SelfGenerated,
    SelfGeneratedTable,
)
from swebench_trainer.preferences.tiers import tier_of, ungraded_tier
from swebench_trainer.stages.pairs import Preferences, pair_counts, require_balance
from swebench_trainer.types import Candidate, Instance, Pair, Status, Tier, Verdict

FREE = {"max_format": 1.0, "length_skew": 1.0, "max_per_instance": 100}


def report(fixed=(), unfixed=(), kept=(), broken=()):
    groups = {"FAIL_TO_PASS": (fixed, unfixed), "PASS_TO_PASS": (kept, broken)}
    return {
        "resolved": False,
        "patch_successfully_applied": True,
        "tests_status": {
            name: {"success": list(good), "failure": list(bad)}
            for name, (good, bad) in groups.items()
        },
    }


def verdict(status=Status.UNRESOLVED, **tests) -> Verdict:
    return Verdict("demo-1", 0, "m", status, report(**tests) if tests else {})


@pytest.mark.parametrize(
    ("given", "tier"),
    [
        (verdict(fixed="a", kept="b", broken="c"), Tier.BREAKS_OTHERS),
        (verdict(fixed="a", unfixed="b", broken="c"), Tier.FAILS),
        (verdict(unfixed="a", kept="b"), Tier.FAILS),
        (verdict(broken="a"), Tier.FAILS),
        (verdict(), Tier.FAILS),
        (verdict(Status.NOT_APPLIED), Tier.NOT_APPLIED),
        (verdict(Status.MALFORMED), Tier.MALFORMED),
        (verdict(Status.NO_PATCH), Tier.NO_PATCH),
        (verdict(Status.RESOLVED), None),
        (verdict(Status.TIMEOUT), None),
        (verdict(Status.OOM), None),
        (verdict(Status.INFRA_ERROR), None),
    ],
)
def test_the_official_report_determines_the_tier(given, tier) -> None:
    assert tier_of(given) is tier


@pytest.mark.parametrize(
    "other",
    [{"tests_status": None}, {"tests_status": {"FAIL_TO_PASS": [1]}}, {"a": 1}],
)
def test_an_unknown_report_is_a_plain_failure(other) -> None:
    given = Verdict("demo-1", 0, "m", Status.UNRESOLVED, other)
    assert tier_of(given) is Tier.FAILS


def test_the_tier_of_an_ungraded_candidate_comes_from_its_extraction_and_checks() -> (
    None
):
    def tier(patch="p", extraction="ok", checks=()):
        return ungraded_tier(
            Candidate("demo-1", 0, "m", "x", patch, extraction, checks=checks)
        )

    assert tier() is tier(checks=("applies",)) is Tier.UNGRADED
    assert tier(checks=("does not apply",)) is Tier.NOT_APPLIED
    assert tier("", "failed:unfinished block") is Tier.MALFORMED
    assert tier("", "failed:no answer") is tier("") is Tier.NO_PATCH


def issue(*answers, number=1, gold="gold", passes=("good",), ungraded=False):
    """Answers are text and verdict."""
    name = f"demo-{number}"
    good = [(text, verdict(Status.RESOLVED)) for text in passes]
    graded = tuple(
        (Candidate(name, sample, "m", text, f"patch of {text}"), found)
        for sample, (text, found) in enumerate([*good, *answers])
    )
    instance = Instance(name, "demo/demo", "0", "It breaks.", "the gold patch")
    if ungraded:
        rest = tuple(candidate for candidate, _ in graded)
        return GradedInstance(instance, "prompt", gold, (), ungraded=rest)
    return GradedInstance(instance, "prompt", gold, graded)


def own(*graded, **keys):
    return list(SelfGenerated(SelfGeneratedTable(**{**FREE, **keys})).pairs(graded))


def api(*graded, **keys):
    table = ApiRejectsTable(use="api-rejects", **{**FREE, **keys})
    return list(ApiRejects(table).pairs(graded))


def test_failures_that_nearly_pass_come_first() -> None:
    graded = issue(
        ("bad", verdict(unfixed="ab", kept="c")),
        ("half", verdict(fixed="a", unfixed="b", kept="c")),
        ("stale", verdict(Status.NOT_APPLIED)),
        ("breaks", verdict(fixed="ab", broken="c")),
        ("cruel", verdict(unfixed="ab", broken="c")),
    )
    texts = ["breaks", "half", "bad", "cruel", "stale"]
    assert [pair.rejected for pair in own(graded)] == texts
    assert own(graded, max_per_instance=1)[0].tier == "breaks_others"


def fails(count, start=0):
    return [(f"bad {start + n}", verdict(unfixed="a")) for n in range(count)]


def malformed(count):
    return [(f"none {n}", verdict(Status.MALFORMED)) for n in range(count)]


def tiers(pairs):
    return Counter(str(pair.tier) for pair in pairs)


def test_shares_that_add_up_to_one_are_met_exactly() -> None:
    graded = issue(*fails(12), *malformed(3))
    mix = Mix(fails=0.75, malformed=0.25)
    assert tiers(own(graded, mix=mix)) == {"fails": 9, "malformed": 3}


def test_a_mix_takes_easier_rejects_where_an_instance_has_room_for_few() -> None:
    issues = [issue(*fails(4), *malformed(4), number=n) for n in range(5)]
    assert tiers(own(*issues, max_per_instance=4)) == {"fails": 20}
    mixed = own(*issues, max_per_instance=4, mix=Mix(fails=0.5))
    assert tiers(mixed) == {"fails": 10, "malformed": 10}
    assert set(Counter(pair.instance_id for pair in mixed).values()) == {4}


def test_rejects_that_only_teach_the_format_are_bounded() -> None:
    graded = issue(*fails(2), *malformed(9))
    assert tiers(own(graded, max_format=0.5)) == {"fails": 2, "malformed": 2}
    assert tiers(own(graded, max_format=0.0)) == {"fails": 2}
    assert tiers(own(issue(*malformed(9)), max_format=0.0)) == {}
    table = SelfGeneratedTable(max_per_instance=100, length_skew=1.0)
    held = SelfGenerated(table).limits([graded])
    assert held.held_back == {"max_format": 7} and not held.missing


def test_held_back_pairs_are_spread_over_all_issues() -> None:
    issues = [issue(*fails(1), *malformed(3), number=n) for n in range(6)]
    pairs = own(*issues, max_format=0.5)
    found = Counter((pair.instance_id, str(pair.tier)) for pair in pairs)
    assert set(found.values()) == {1} and len(found) == 12


def test_shares_that_allow_no_pair_are_rejected() -> None:
    with pytest.raises(ValidationError, match="less than 1"):
        Mix(**dict.fromkeys(Mix.model_fields, 0.1))
    with pytest.raises(ValidationError, match="above"):
        SelfGeneratedTable(min_pass_rate=0.6, max_pass_rate=0.5)


def pair(chosen: int, rejected: int, number: int = 0) -> Pair:
    return Pair(
        f"demo-{number}", "", "c" * chosen, "r" * rejected, "s", "", "", "fails"
    )


def test_length_gaps_are_symmetric() -> None:
    for long, short in ((150, 100), (4000, 90), (9, 2), (120, 100)):
        assert length_gap(pair(long, short)) == -length_gap(pair(short, long)) >= 0
    assert (
        length_gap(pair(120, 100))
        == 0
        < length_gap(pair(300, 100))
        < length_gap(pair(900, 100))
    )


def test_length_gaps_are_balanced_by_pairs_in_the_opposite_direction() -> None:
    longer = [pair(400, 100, n) for n in range(7)]
    shorter = [pair(100, 400, n) for n in range(7, 10)]
    alike = [pair(100, 100, n) for n in range(10, 12)]
    offers = [*longer, *alike, *shorter]

    def sizes(**keys):
        table = BalancedTable(use="x", **keys)
        return Counter(length_gap(p) for p in balanced(offers, table)[0])

    size = length_gap(longer[0])
    assert sizes(length_skew=0.0) == {size: 3, -size: 3, 0: 2}
    assert sizes(length_skew=0.2) == {size: 5, -size: 3, 0: 2}
    assert sizes(length_skew=1.0) == {size: 7, -size: 3, 0: 2}


def test_a_failure_is_paired_with_the_pass_of_the_nearest_length() -> None:
    passes = ("x" * 50, "y" * 500, "z" * 20)
    rejects = [("a" * 480, verdict(unfixed="t")), ("b" * 22, verdict(unfixed="t"))]
    found = own(issue(*rejects, passes=passes), max_per_instance=2)
    assert [len(p.chosen) for p in found] == [500, 20]


def test_gold_is_paired_first_with_rejects_of_the_nearest_length() -> None:
    rejects = [("a" * size, verdict(unfixed="t")) for size in (900, 5, 300)]
    found = api(issue(*rejects, gold="g" * 6, passes=()), max_per_instance=2)
    assert [len(p.rejected) for p in found] == [5, 300]


def test_rejects_are_restyled_as_gold_is_written() -> None:
    import dataclasses

    graded = issue(("Sure! Here it is: bad", verdict(unfixed="t")), passes=())
    (candidate, _), *_ = graded.graded
    graded = dataclasses.replace(graded, rendered={candidate.patch: "bad"})
    (pair,) = api(graded)
    assert (pair.rejected, pair.restyled) == ("bad", True)
    (pair,) = api(graded, restyle=False)
    assert (pair.rejected, pair.restyled) == (candidate.text, False)


def test_ungraded_candidates_are_used_only_if_the_recipe_allows_it() -> None:
    graded = issue(*fails(2), passes=(), ungraded=True)
    assert own(graded) == api(graded) == []
    assert tiers(api(graded, graded=False)) == {"ungraded": 2}
    assert api(issue(*fails(2)), graded=False) == []
    assert ApiRejectsTable(use="api-rejects", graded=False).needs_grades is False


def test_the_normal_form_decides_which_patches_are_repeats() -> None:
    import dataclasses

    graded = issue(*fails(2), passes=("good",))
    first, second = (candidate.patch for candidate, _ in graded.graded[1:])
    gold, good = "the gold patch", graded.graded[0][0].patch

    def rejected(**forms):
        named = {gold: "G", good: "P", first: "1", second: "2", **forms}
        return [p.rejected for p in own(dataclasses.replace(graded, forms=named))]

    assert rejected() == ["bad 0", "bad 1"]
    assert rejected(**{second: "1"}) == ["bad 0"]
    assert rejected(**{first: "G"}) == ["bad 1"]
    assert rejected(**{first: "P", second: "G"}) == []


def test_a_patch_without_answer_text_is_on_neither_side() -> None:
    graded = issue(("", verdict(unfixed="t")), passes=("",), gold="")
    assert own(graded) == api(graded) == []


def test_tiered_prefers_each_reward_to_the_next_lower_one() -> None:
    from swebench_trainer.preferences.strategies import Tiered, TieredTable

    def steps(*graded):
        pairs = Tiered(TieredTable(use="tiered", **FREE)).pairs(graded)
        return [(p.chosen, p.chosen_tier, p.rejected) for p in pairs]

    wrong, none = *fails(1), *malformed(1)
    assert steps(issue(wrong, none)) == [
        ("good", "", "bad 0"),
        ("bad 0", "fails", "none 0"),
    ]
    assert steps(issue(none)) == [("good", "", "none 0")]
    assert steps(issue(wrong, none, passes=(), gold="")) == [
        ("bad 0", "fails", "none 0")
    ]
    assert steps(issue(wrong, passes=())) == [("gold", "", "bad 0")]


def test_a_balance_that_leaves_hardly_any_pairs_fails_the_run():
    def found(left, **held):
        pairs = [
            Pair("a", "p", "c", f"r{n}", "s", "gold", "", "x") for n in range(left)
        ]
        bottlenecks = Bottlenecks({MissingForPair.NO_PASS: 9}, held, {"max_format": 9})
        stats = pair_counts(pairs, [], SelfGeneratedTable(), {}, bottlenecks)
        return Preferences(pairs, left, stats)

    require_balance(found(1))
    require_balance(found(1, max_format=98))
    require_balance(found(1, max_per_instance=999))
    require_balance(found(10, max_format=80, length_skew=10))
    with pytest.raises(StageError, match="length_skew leaves 9 of 101 possible pairs"):
        require_balance(found(9, max_format=12, length_skew=80))
    with pytest.raises(StageError, match=r"\[pairs\] mix\.fails leaves 1 of 100"):
        require_balance(found(1, **{"mix.fails": 99}))
