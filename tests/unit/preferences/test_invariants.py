"""Properties of the pairs of every built-in strategy, for any candidates."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.balance import Mix, length_gap
from swebench_trainer.preferences.rules import PairRules
from swebench_trainer.preferences.strategies import (
    ApiRejects,
    ApiRejectsTable,
    SelfGenerated,
    SelfGeneratedTable,
    Tiered,
    TieredTable,
    Unpaired,
    UnpairedTable,
)
from swebench_trainer.preferences.tiers import FORMAT
from swebench_trainer.types import FLAKY, Candidate, Instance, Status, Verdict

MAKERS = {
    "self-generated": (SelfGenerated, SelfGeneratedTable),
    "api-rejects": (ApiRejects, ApiRejectsTable),
    "tiered": (Tiered, TieredTable),
    "unpaired": (Unpaired, UnpairedTable),
}
BALANCED = ("self-generated", "api-rejects", "tiered")
GOLD = "y = 0"

quick = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)


def patch(body: str) -> str:
    return f"--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+{body}\n"


def meaning(body: str) -> str:
    """The meaning of a body, computed independently of the code under test."""
    return body.partition("#")[0].replace(" ", "").replace("\t", "")


def report(fixed: bool, broken: bool):
    ends = {True: ["t"], False: []}
    return {
        "tests_status": {
            "FAIL_TO_PASS": {"success": ends[fixed], "failure": ends[not fixed]},
            "PASS_TO_PASS": {"success": ["u"], "failure": ends[broken]},
        }
    }


@st.composite
def bodies(draw):
    """Few meanings, each written in several ways."""
    number = draw(st.integers(0, 4))
    space = draw(st.sampled_from(["", " ", "\t"]))
    remark = draw(st.sampled_from(["", " # so", " # " + "very " * 30]))
    return f"y {space}= {number}{remark}"


@st.composite
def candidates(draw, instance_id):
    graded = []
    for sample in range(draw(st.integers(0, 7))):
        body = draw(bodies())
        status = draw(st.sampled_from(list(Status)))
        flags = draw(st.sampled_from([(), (), (), (FLAKY,), ("edits a test",)]))
        missing = status in (Status.NO_PATCH, Status.MALFORMED)
        text, changed = (f"prose {body}", "") if missing else (body, patch(body))
        candidate = Candidate(instance_id, sample, "m", text, changed)
        found = report(draw(st.booleans()), draw(st.booleans()))
        verdict = Verdict(instance_id, sample, "m", status, found, flags)
        graded.append((candidate, verdict))
    return tuple(graded)


@st.composite
def issues(draw):
    found = []
    for number in range(draw(st.integers(0, 5))):
        name = f"demo-{number}"
        gold = draw(st.sampled_from([GOLD, GOLD + " # gold", ""]))
        instance = Instance(name, "demo/demo", "0", "It breaks.", patch(GOLD))
        graded = draw(candidates(name))
        found.append(GradedInstance(instance, f"prompt {number}", gold, graded))
    return found


@st.composite
def keys(draw):
    share = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    return {
        "max_per_instance": draw(st.integers(1, 6)),
        "max_format": draw(share),
        "length_skew": draw(share),
        "mix": Mix(fails=draw(share), breaks_others=draw(share), malformed=draw(share)),
    }


def at_most(share: float, count: int) -> float:
    return max(share * count, 1 if share else 0)


def pairs_of(use, graded, given_keys=None):
    strategy, table = MAKERS[use]
    return list(strategy(table(use=use, **(given_keys or {}))).pairs(graded))


@pytest.mark.parametrize("use", MAKERS)
@quick
@given(graded=issues())
def test_only_decided_and_trusted_verdicts_are_used(use, graded) -> None:
    known = {
        (item.instance.instance_id, f"sample:{c.sample}"): v
        for item in graded
        for c, v in item.graded
    }
    for pair in pairs_of(use, graded):
        chosen = known.get((pair.instance_id, pair.chosen_source))
        rejected = known.get((pair.instance_id, pair.rejected_source))
        assert (chosen is None) == (pair.chosen_source in ("gold", ""))
        if chosen and not pair.chosen_tier:
            assert chosen.trusted_pass
        if chosen and pair.chosen_tier:
            assert use == "tiered" and not chosen.flaky
            assert (chosen.reward, rejected.reward) == (0, -1)
        assert (rejected is None) == (pair.rejected is None)
        if rejected:
            assert rejected.reward in (0, -1) and not rejected.flaky
            assert rejected.status is not Status.TIMEOUT
        assert pair.chosen or pair.rejected is not None


@pytest.mark.parametrize("use", MAKERS)
@quick
@given(graded=issues())
def test_built_in_strategies_obey_the_rules_for_pairs(use, graded) -> None:
    strategy, table = MAKERS[use]
    settings = table(use=use)
    pairs = list(strategy(settings).pairs(graded))
    assert list(PairRules.of_table(settings).checked(pairs, graded)) == pairs


@pytest.mark.parametrize("use", MAKERS)
@quick
@given(graded=issues())
def test_no_reject_repeats_gold_or_a_pass(use, graded) -> None:
    right = {
        item.instance.instance_id: {meaning(GOLD)}
        | {meaning(c.text) for c, v in item.graded if v.reward == 1}
        for item in graded
    }
    repeats = Counter()
    for pair in pairs_of(use, graded, {"max_per_instance": 100}):
        if pair.rejected is not None and not pair.rejected.startswith("prose"):
            assert meaning(pair.rejected) not in right[pair.instance_id]
            repeats[pair.instance_id, pair.chosen, meaning(pair.rejected)] += 1
    assert not repeats or max(repeats.values()) == 1


@pytest.mark.parametrize("use", MAKERS)
@quick
@given(graded=issues(), seed=st.integers(0, 9))
def test_pairs_do_not_depend_on_the_order_of_the_input(use, graded, seed) -> None:
    draw = random.Random(seed)
    shuffled = [
        dataclasses.replace(i, graded=tuple(draw.sample(i.graded, len(i.graded))))
        for i in draw.sample(graded, len(graded))
    ]
    expected = pairs_of(use, graded)
    assert pairs_of(use, shuffled) == expected == pairs_of(use, graded)


@pytest.mark.parametrize("use", BALANCED)
@quick
@given(graded=issues(), wanted=keys())
def test_caps_and_shares_hold(use, graded, wanted) -> None:
    pairs = pairs_of(use, graded, wanted)
    count = len(pairs)
    by_instance = Counter(pair.instance_id for pair in pairs)
    assert max(by_instance.values(), default=0) <= wanted["max_per_instance"]
    by_tier = Counter(pair.tier for pair in pairs)
    for tier, share in wanted["mix"]:
        assert by_tier[tier] <= at_most(share, count), tier
    about_form = sum(by_tier[tier] for tier in FORMAT)
    assert about_form <= at_most(wanted["max_format"], count)
    sizes = Counter(length_gap(pair) for pair in pairs)
    one_way = sum(max(0, n - sizes[-size]) for size, n in sizes.items() if size)
    assert one_way <= at_most(wanted["length_skew"], count)


@pytest.mark.parametrize("use", BALANCED)
@quick
@given(graded=issues(), wanted=keys())
def test_every_possible_pair_is_made_or_counted_as_held_back(
    use, graded, wanted
) -> None:
    strategy, table = MAKERS[use]
    made = strategy(table(use=use, **wanted))
    free = {"max_per_instance": 10**6, "max_format": 1.0, "length_skew": 1.0}
    held = made.limits(graded).held_back
    possible = pairs_of(use, graded, free)
    assert len(possible) == len(list(made.pairs(graded))) + sum(held.values())


@quick
@given(graded=issues(), low=st.floats(0, 1), high=st.floats(0, 1))
def test_only_issues_in_the_range_of_pass_rates_have_a_pass_as_chosen(
    graded, low, high
) -> None:
    assume(low <= high)
    band = {"min_pass_rate": low, "max_pass_rate": high}
    rates = {}
    for item in graded:
        passed = sum(v.trusted_pass for _, v in item.graded)
        failed = sum(v.reward in (0, -1) and not v.flaky for _, v in item.graded)
        rates[item.instance.instance_id] = passed / max(1, passed + failed)
    for outside in ("gold", "skip"):
        wanted = {**band, "outside": outside}
        for pair in pairs_of("self-generated", graded, wanted):
            inside = 0 < rates[pair.instance_id] < 1
            inside = inside and low <= rates[pair.instance_id] <= high
            assert inside == (pair.chosen_source != "gold")
            assert inside or outside == "gold"
