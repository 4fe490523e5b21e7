"""The pairs of every built-in strategy do not change, in content and order."""

from __future__ import annotations

import random

import pytest

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.balance import Mix
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
from swebench_trainer.store.digest import digest
from swebench_trainer.types import FLAKY, Candidate, Instance, Status, Verdict, as_row

BODIES = ["y = 1", "y  =  1  # so", *(f"y = {'9' * n}" for n in range(1, 60, 3))]
STATUSES = [Status.UNRESOLVED] * 8 + list(Status)
STRATEGIES = {
    "self-generated": (SelfGenerated, SelfGeneratedTable),
    "self-generated in a band": (SelfGenerated, SelfGeneratedTable),
    "self-generated unbounded": (SelfGenerated, SelfGeneratedTable),
    "api-rejects": (ApiRejects, ApiRejectsTable),
    "api-rejects ungraded": (ApiRejects, ApiRejectsTable),
    "tiered": (Tiered, TieredTable),
    "unpaired": (Unpaired, UnpairedTable),
}
KEYS = {
    "self-generated in a band": {"min_pass_rate": 0.3, "outside": "skip"},
    "self-generated unbounded": {"max_format": 1.0, "length_skew": 1.0},
    "api-rejects": {"restyle": False, "max_format": 1.0, "length_skew": 1.0},
    "api-rejects ungraded": {"graded": False, "length_skew": 1.0},
    "tiered": {"mix": Mix(fails=0.5), "max_per_instance": 4},
}
EXPECTED = {
    "self-generated": (46, "29f4613c5569d1be"),
    "self-generated in a band": (7, "db7859cc86ac30d9"),
    "self-generated unbounded": (92, "9940724609f68e83"),
    "api-rejects ungraded": (114, "835e6ceacb5043c9"),
    "api-rejects": (84, "0d361c75b4a1b55b"),
    "tiered": (104, "f620bdc6f29b17b7"),
    "unpaired": (167, "3479b0d78aa096a5"),
}
"""Number of pairs, and digest of their rows."""


def report(draw: random.Random) -> dict:
    """A report of four tests in each group, of which some fail."""
    groups = {}
    for name in ("FAIL_TO_PASS", "PASS_TO_PASS"):
        failed = draw.choice([0, 0, 1, 2, 4])
        tests = [f"t{n}" for n in range(4)]
        groups[name] = {"success": tests[failed:], "failure": tests[:failed]}
    return {"tests_status": groups}


def candidate(draw: random.Random, name: str, sample: int) -> Candidate:
    body = draw.choice(BODIES)
    patch = f"--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+{body}\n"
    extraction = draw.choice(["ok"] * 7 + ["failed:unfinished block"])
    failed = extraction != "ok"
    model = draw.choice(["m", "n"])
    text = f"prose {sample}" if failed else f"{body} {draw.choice('ab')}"
    return Candidate(name, sample, model, text, "" if failed else patch, extraction)


def issue(number: int, *, graded: bool) -> GradedInstance:
    draw = random.Random(number)
    name = f"demo-{number}"
    gold = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y = 1\n"
    instance = Instance(name, f"demo/{number % 3}", "0", "It breaks.", gold)
    candidates = [candidate(draw, name, n) for n in range(draw.randrange(9))]
    statuses = draw.choices(STATUSES, k=len(candidates))
    flags = draw.choices([(), (), (), (FLAKY,), ("touches_tests",)], k=len(candidates))
    verdicts = [
        Verdict(name, c.sample, c.model, status, report(draw), flag)
        for c, status, flag in zip(candidates, statuses, flags, strict=True)
    ]
    return GradedInstance(
        instance,
        prompt=f"prompt {number}",
        gold=draw.choice(["y = 1", "y = 1", ""]),
        graded=tuple(zip(candidates, verdicts, strict=True)) if graded else (),
        ungraded=() if graded else tuple(candidates),
        forms={c.patch: digest(c.patch) for c in candidates if draw.random() < 0.5},
        rendered={c.patch: f"as a diff: {c.patch}" for c in candidates},
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_pairs_of_built_in_strategies_do_not_change(name) -> None:
    strategy, table = STRATEGIES[name]
    settings = table(use=name.split()[0], **KEYS.get(name, {}))
    issues = [issue(n, graded=settings.needs_grades) for n in range(60)]
    pairs = list(strategy(settings).pairs(issues))
    assert list(PairRules.of_table(settings).checked(pairs, issues)) == pairs
    assert (len(pairs), digest([as_row(pair) for pair in pairs])) == EXPECTED[name]
