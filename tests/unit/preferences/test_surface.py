"""The classifier that sees only the surface of answers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from swebench_trainer.preferences.surface import FEATURES, MIN_PAIRS, _fitted, classify
from swebench_trainer.types import Pair


def answer(draw: random.Random, lines: int) -> str:
    words = ["x = 1", "", "# so", "return x", "    call(y, z)", "café = 2"]
    return "\n".join(draw.choice(words) for _ in range(lines))


def pairs(count: int, longer: int, seed: int = 0, **changes) -> list[Pair]:
    """Pairs of random answers; `chosen` is longer by that many lines."""
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


def test_the_classifier_cannot_separate_answers_of_one_kind() -> None:
    found = classify(pairs(400, longer=0))
    assert found.pairs == 400
    assert 0.4 < found.correct / found.pairs < 0.6
    assert all(0.4 < share < 0.6 for share in found.chosen_higher.values())


def test_a_length_difference_is_found() -> None:
    found = classify(pairs(120, longer=15))
    assert found.correct / found.pairs > 0.95
    assert found.chosen_higher["lines"] == 1.0 and found.chosen_higher["fences"] == 0.5


def test_a_style_difference_is_found_and_named() -> None:
    fenced = [
        Pair(**{**vars(p), "rejected": f"```\n{p.rejected}\n```"})
        for p in pairs(60, longer=2)
    ]
    found = classify(fenced)
    assert found.correct / found.pairs > 0.95 and found.chosen_higher["fences"] == 0.0


def test_equal_surfaces_count_as_one_half() -> None:
    found = classify(pairs(30, longer=0, chosen="a = 1", rejected="b = 2"))
    assert found.correct == 15 and set(found.chosen_higher.values()) == {0.5}


def test_too_few_pairs_or_a_single_issue_give_no_accuracy() -> None:
    assert classify(pairs(MIN_PAIRS - 1, longer=9)) is None
    alone = pairs(40, longer=9, chosen="a", rejected=None)
    assert classify(alone) is None
    one = [Pair(**{**vars(p), "instance_id": "demo-0"}) for p in pairs(40, longer=9)]
    assert classify(one) is None
    assert classify([]) is None


def test_the_classifier_is_tested_on_unseen_issues() -> None:
    """Each issue has its own style, which only helps a classifier that has seen it."""
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
    assert classify(found).correct / len(found) < 0.65


@pytest.mark.parametrize("seed", range(3))
def test_the_weights_are_optimal(seed) -> None:
    """At the optimum the gradient of the penalized log-likelihood is zero."""
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
