"""How strong a counter-run must be before its pass may be chosen."""

from __future__ import annotations

import dataclasses

import pytest

from swebench_trainer.preferences.trust import BELOW_TRUST, at_trust
from swebench_trainer.types import Status, Strength, Verdict

PASS = Verdict("i", 0, "m", Status.RESOLVED)


@pytest.mark.parametrize(
    ("least", "accepted"),
    [
        ("expectation", ["expectation"]),
        ("sabotage", ["expectation", "sabotage"]),
        ("canary", ["expectation", "sabotage", "canary"]),
        ("any", ["expectation", "sabotage", "canary", None]),
    ],
)
def test_stronger_counter_runs_count_for_weaker_levels(least, accepted):
    for strength in (*Strength, None):
        verdict = dataclasses.replace(PASS, strength=strength)
        expected = () if strength in accepted else (BELOW_TRUST,)
        assert at_trust(verdict, least).flags == expected


def test_failures_and_flagged_passes_stay_as_they_are():
    failed = dataclasses.replace(PASS, status=Status.UNRESOLVED)
    flagged = dataclasses.replace(PASS, flags=("tampered",))
    assert at_trust(failed, "expectation") is failed
    assert at_trust(flagged, "expectation") is flagged
