"""What can be told of pairs without reading them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from swebench_trainer.preferences.surface import FEATURES, LEAST, _fitted, judge
from swebench_trainer.types import Pair


def answer(draw: random.Random, lines: int) -> str:
    words = ["x = 1", "", "# so", "return x", "    call(y, z)", "café = 2"]
    return "\n".join(draw.choice(words) for _ in range(lines))


def pairs(count: int, longer: int, seed: int = 0, **changes) -> list[Pair]:
    """Pairs of random answers; `chosen` has so many lines more."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        chosen, rejected = answer(draw, 20 + longer), answer(draw, 20)
        fields = {"chosen": chosen, "rejected": rejected, **changes}
        found.append(
            Pair(
                instance_id=f"demo-{number // 3}",
                prompt="p",
                strategy="s",
                chosen_source="gold",
                rejected_source="sample:0",
                tier="fails",
                **fields,
            )
        )
    return found


def test_answers_of_one_kind_are_not_told_apart() -> None:
    found = judge(pairs(400, longer=0))
    assert found.pairs == 400
    assert 0.4 < found.right / found.pairs < 0.6
    assert all(0.4 < share < 0.6 for share in found.higher.values())


def test_length_gives_answers_away() -> None:
    found = judge(pairs(120, longer=15))
    assert found.right / found.pairs > 0.95
    assert found.higher["lines"] == 1.0 and found.higher["fences"] == 0.5


def test_a_habit_gives_answers_away_and_is_named() -> None:
    fenced = [
        Pair(**{**vars(p), "rejected": f"```\n{p.rejected}\n```"})
        for p in pairs(60, longer=2)
    ]
    found = judge(fenced)
    assert found.right / found.pairs > 0.95 and found.higher["fences"] == 0.0


def test_equal_surfaces_count_half() -> None:
    found = judge(pairs(30, longer=0, chosen="a = 1", rejected="b = 2"))
    assert found.right == 15 and set(found.higher.values()) == {0.5}


def test_too_few_pairs_or_a_single_issue_say_nothing() -> None:
    assert judge(pairs(LEAST - 1, longer=9)) is None
    alone = pairs(40, longer=9, chosen="a", rejected=None)
    assert judge(alone) is None
    one = [Pair(**{**vars(p), "instance_id": "demo-0"}) for p in pairs(40, longer=9)]
    assert judge(one) is None
    assert judge([]) is None


def test_issues_that_were_learned_from_are_not_asked_about() -> None:
    """Each issue has a habit of its own: known by heart it tells all, else nothing."""
    draw = random.Random(1)
    found = []
    for number in range(60):
        sides = ["a" * 30, "b" * draw.randint(1, 90)]
        draw.shuffle(sides)
        found += [
            Pair(
                **{
                    **vars(p),
                    "instance_id": f"demo-{number}",
                    "chosen": sides[0],
                    "rejected": sides[1],
                }
            )
            for p in pairs(5, longer=0)
        ]
    assert judge(found).right / len(found) < 0.65


@pytest.mark.parametrize("seed", range(3))
def test_the_weights_are_the_best_ones(seed) -> None:
    """At the optimum the slope of the ridged log-likelihood is zero."""
    draw = np.random.default_rng(seed)
    differences = draw.normal(size=(80, len(FEATURES))) + draw.normal(
        size=len(FEATURES)
    )
    differences[:, 3] = 0.0
    scale = np.sqrt((differences**2).mean(axis=0))
    scale[3] = 1.0
    weights = _fitted(differences) * scale
    scaled = differences / scale
    slope = scaled.T @ (1 / (1 + np.exp(scaled @ weights))) - weights
    assert abs(slope).max() < 1e-6
