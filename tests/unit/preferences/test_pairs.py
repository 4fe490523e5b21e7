"""Which graded candidates are chosen, which are rejected, and which are not used."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from swebench_trainer.contracts import Bottlenecks, GradedInstance, MissingForPair
from swebench_trainer.preferences.eligibility import bottlenecks, parse_limits
from swebench_trainer.preferences.strategies import (
    ApiRejects,
    ApiRejectsTable,
    SelfGenerated,
    SelfGeneratedTable,
    Unpaired,
    UnpairedTable,
)
from swebench_trainer.types import FLAKY, Candidate, Instance, Status, Verdict

GOLD = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+    y = 1\n"
Answer = tuple[str, Status] | tuple[str, Status, str] | tuple[str, Status, str, str]


def issue(*answers: Answer, gold: str = "the gold answer") -> GradedInstance:
    """An instance; each answer is text, status, patch and flag."""
    instance = Instance("demo-1", "demo/demo", "0", "It breaks.", GOLD)
    graded = []
    for sample, (text, status, *rest) in enumerate(answers):
        patch = rest[0] if rest else f"patch of {text}"
        graded.append(
            (
                Candidate("demo-1", sample, "m", text, patch),
                Verdict("demo-1", sample, "m", status, flags=tuple(rest[1:])),
            )
        )
    return GradedInstance(instance, "the prompt", gold, tuple(graded))


PASS, FAIL = Status.RESOLVED, Status.UNRESOLVED


FREE = {"max_format": 1.0, "length_skew": 1.0, "max_per_instance": 100}


def own(*graded: GradedInstance, **keys):
    return list(SelfGenerated(SelfGeneratedTable(**{**FREE, **keys})).pairs(graded))


def api(*graded: GradedInstance, **keys):
    table = ApiRejectsTable(use="api-rejects", **{**FREE, **keys})
    return list(ApiRejects(table).pairs(graded))


def test_a_pass_is_preferred_to_a_failure() -> None:
    (pair,) = own(issue(("bad", FAIL), ("good", PASS)))
    assert (pair.prompt, pair.chosen, pair.rejected) == ("the prompt", "good", "bad")
    assert (pair.chosen_source, pair.rejected_source) == ("sample:1", "sample:0")
    assert (pair.strategy, pair.tier) == ("self-generated", "fails")


def test_gold_is_preferred_to_a_failure_of_another_model() -> None:
    (pair,) = api(issue(("good", PASS), ("bad", FAIL)))
    assert (pair.chosen, pair.rejected) == ("the gold answer", "bad")
    assert (pair.chosen_source, pair.strategy) == ("gold", "api-rejects")


@pytest.mark.parametrize("make", [own, api])
@pytest.mark.parametrize(
    "other",
    [
        ("masked", Status.TIMEOUT),
        ("masked", Status.OOM),
        ("masked", Status.INFRA_ERROR),
        ("doubted", PASS, "p", "edits a test"),
        ("flaky pass", PASS, "p", FLAKY),
        ("flaky failure", FAIL, "p", FLAKY),
        ("flaky failure", Status.NOT_APPLIED, "p", FLAKY),
    ],
)
def test_masked_and_suspicious_candidates_are_on_neither_side(make, other) -> None:
    assert make(issue(other)) == []
    texts = {(p.chosen, p.rejected) for p in make(issue(other, ("bad", FAIL)))}
    assert texts == {("the gold answer", "bad")}


@pytest.mark.parametrize("make", [own, api])
def test_a_timeout_is_not_used_even_if_the_patch_causes_it(make) -> None:
    late = issue(("late", Status.TIMEOUT), ("good", PASS))
    candidate, verdict = late.graded[0]
    explained = dataclasses.replace(verdict, explained=True)
    assert explained.reward == 0
    graded = dataclasses.replace(late, graded=((candidate, explained), late.graded[1]))
    assert make(graded) == []
    assert bottlenecks([graded]) == Bottlenecks({MissingForPair.NO_RELIABLE_FAILURE: 1})


@pytest.mark.parametrize("make", [own, api])
def test_the_hardest_failures_come_first(make) -> None:
    graded = issue(
        ("", Status.NO_PATCH, ""),
        ("prose", Status.MALFORMED, ""),
        ("stale", Status.NOT_APPLIED),
        ("wrong", FAIL),
    )
    assert [p.rejected for p in make(graded)] == ["wrong", "stale", "prose", ""]
    assert [p.rejected for p in make(graded, max_per_instance=2)] == ["wrong", "stale"]


@pytest.mark.parametrize("make", [own, api])
def test_equal_texts_and_equal_patches_are_used_once(make) -> None:
    graded = issue(
        ("a", FAIL, "p"), ("a", FAIL, "q"), ("b", FAIL, "p"), ("c", FAIL, "r")
    )
    assert [p.rejected for p in make(graded)] == ["a", "c"]


@pytest.mark.parametrize("make", [own, api])
def test_a_failure_that_repeats_a_pass_is_not_used(make) -> None:
    assert make(issue(("good", PASS, "p"), ("also good", FAIL, "p"))) == []


@pytest.mark.parametrize("make", [own, api])
def test_a_failure_that_repeats_gold_is_not_used(make) -> None:
    again = GOLD.replace("    y = 1", "\ty  =  1").replace("@@ -1 +1 @@", "@@ -9 +9 @@")
    assert make(issue(("mine", FAIL, again), ("the gold  answer\n", FAIL, "p"))) == []


def test_an_issue_without_pass_and_gold_gives_no_pair() -> None:
    assert own(issue(("bad", FAIL)), outside="skip") == []
    assert own(issue(("bad", FAIL), gold="")) == []
    assert api(issue(("bad", FAIL), gold="")) == []
    assert own(issue(("good", PASS))) == api(issue(("good", PASS))) == []


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 40))
def test_both_sides_are_used_evenly_and_no_pair_is_repeated(
    passed, failed, most
) -> None:
    graded = issue(
        *((f"good {i}", PASS) for i in range(passed)),
        *((f"bad {i}", FAIL) for i in range(failed)),
    )
    pairs = own(graded, max_per_instance=most)
    assert len(pairs) == min(most, passed * failed)
    assert len({(p.chosen, p.rejected) for p in pairs}) == len(pairs)
    for side, size in (("chosen", passed), ("rejected", failed)):
        used = Counter(getattr(pair, side) for pair in pairs)
        assert (
            max(used.values()) - (min(used.values()) if len(used) == size else 0) <= 1
        )
    assert pairs == own(graded, max_per_instance=most)


def test_bottlenecks_count_what_instances_lack() -> None:
    fine = issue(("good", PASS), ("bad", FAIL))
    assert bottlenecks([fine]) == Bottlenecks()
    missing = MissingForPair
    cases = {
        missing.NO_CANDIDATES: issue(),
        missing.NO_DECIDED_CANDIDATE: issue(("slow", Status.TIMEOUT)),
        missing.NO_FAILURE: issue(("good", PASS), ("slow", Status.TIMEOUT)),
        missing.FAILURES_REPEAT_PASSES: issue(("good", PASS), ("good", FAIL)),
        missing.NO_RELIABLE_FAILURE: issue(("bad", FAIL, "p", FLAKY)),
        missing.NO_PASS: issue(("bad", FAIL)),
        missing.NO_TRUSTED_PASS: issue(("bad", FAIL), ("doubted", PASS, "p", "flag")),
        missing.NO_PASS_NO_GOLD: issue(("bad", FAIL), gold=""),
        missing.FAILURES_REPEAT_GOLD: issue(("mine", FAIL, GOLD)),
    }
    found = bottlenecks([fine, *cases.values(), issue(("bad", FAIL))])
    assert found == Bottlenecks({**dict.fromkeys(cases, 1), missing.NO_PASS: 2})


@pytest.mark.parametrize(
    ("instance", "keys", "expected"),
    [
        (issue(("bad", FAIL), gold=""), {}, MissingForPair.NO_GOLD),
        (issue(("good", PASS)), {}, MissingForPair.NO_FAILURE),
        (issue(("bad", FAIL)), {"graded": False}, MissingForPair.NO_CANDIDATES),
    ],
)
def test_api_rejects_counts_what_instances_lack_for_it(instance, keys, expected):
    table = ApiRejectsTable(use="api-rejects", **keys)
    assert ApiRejects(table).limits([instance]).missing == {expected: 1}


def test_phrases_of_a_plugin_are_only_displayed_and_its_keys_are_recognized():
    reported = {"max_format": 2, "mix.fails": 1, "max_format of the moon": 3, "": 0}
    found = parse_limits(reported, SelfGeneratedTable())
    assert found.held_back == {"max_format": 2, "mix.fails": 1}
    assert found.other == {"max_format of the moon": 3, "": 0} and not found.missing
    assert parse_limits(found, SelfGeneratedTable()) is found


def test_self_generated_counts_instances_outside_the_range_of_pass_rates():
    table = SelfGeneratedTable(min_pass_rate=0.9)
    instance = issue(("good", PASS), ("bad", FAIL))
    found = SelfGenerated(table).limits([instance]).missing
    assert found == {MissingForPair.PASS_RATE_OUT_OF_RANGE: 1}


def answers(*graded: GradedInstance, **keys):
    return list(Unpaired(UnpairedTable(use="unpaired", **keys)).pairs(graded))


def test_unpaired_uses_every_decided_candidate_as_good_or_bad() -> None:
    rows = answers(issue(("good", PASS), ("bad", FAIL), ("worse", Status.MALFORMED)))
    assert [(r.chosen, r.rejected, r.tier) for r in rows] == [
        ("good", None, PASS),
        (None, "bad", "fails"),
        (None, "worse", "malformed"),
    ]
    assert [(r.chosen_source, r.rejected_source) for r in rows] == [
        ("sample:0", ""),
        ("", "sample:1"),
        ("", "sample:2"),
    ]


def test_unpaired_uses_issues_whose_candidates_all_pass_or_all_fail() -> None:
    (only,) = answers(issue(("good", PASS)))
    assert (only.chosen, only.rejected) == ("good", None)
    gold, bad = answers(issue(("bad", FAIL)))
    assert (gold.chosen, gold.chosen_source) == ("the gold answer", "gold")
    assert (bad.chosen, bad.rejected) == (None, "bad")
    (bad,) = answers(issue(("bad", FAIL)), gold_fallback=False)
    assert bad.rejected == "bad"
    (bad,) = answers(issue(("bad", FAIL), gold=""))
    assert bad.rejected == "bad"


def test_unpaired_alternates_good_and_bad_answers() -> None:
    graded = issue(
        *((f"good {n}", PASS) for n in range(5)),
        *((f"bad {n}", FAIL) for n in range(2)),
    )
    rows = answers(graded, max_per_instance=6)
    assert [r.chosen or r.rejected for r in rows] == [
        *("good 0", "bad 0", "good 1", "bad 1", "good 2", "good 3")
    ]


@pytest.mark.parametrize(
    "other",
    [
        ("masked", Status.TIMEOUT),
        ("masked", Status.INFRA_ERROR),
        ("doubted", PASS, "p", "edits a test"),
        ("flaky failure", FAIL, "p", FLAKY),
    ],
)
def test_unpaired_does_not_use_masked_and_suspicious_candidates(other) -> None:
    assert answers(issue(other)) == []
    rows = answers(issue(other, ("bad", FAIL)))
    assert [r.chosen or r.rejected for r in rows] == ["the gold answer", "bad"]
