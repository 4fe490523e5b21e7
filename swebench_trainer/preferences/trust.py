"""How strong a counter-run must be before its pass may be chosen."""

from __future__ import annotations

import dataclasses

from swebench_trainer.recipe.models import Trust
from swebench_trainer.types import Strength, Verdict

BELOW_TRUST = "below_trust"
"""Flag of a pass whose counter-run is weaker than `[pairs] trust`, or missing."""


def at_trust(verdict: Verdict, least: Trust) -> Verdict:
    """The verdict, with a flag if it is a pass that is trusted less than required."""
    if least == "any" or not verdict.trusted_pass:
        return verdict
    strengths = list(Strength)
    accepted = strengths[: strengths.index(Strength(least)) + 1]
    if verdict.strength in accepted:
        return verdict
    return dataclasses.replace(verdict, flags=(BELOW_TRUST,))
