"""Draws stay the same, or runs would split, sample and shuffle differently."""

from __future__ import annotations

import pytest

from swebench_trainer.store.draw import (
    draw_fraction,
    draw_index,
    draw_key,
    draw_seed,
    generator,
)


def test_draws_do_not_change_between_versions():
    assert draw_key(3, "limit", "demo-1") == "4078f2a27ec66034"
    assert draw_fraction(3, "holdout", "demo-1") == pytest.approx(
        0.8646649126044607, abs=1e-12
    )
    assert draw_index(7, "search_context", "demo-1") == 6
    assert draw_seed(3, "demo-1", 0) == 108336710411243
    assert generator(3, "kto").sample(range(9), 9) == [8, 7, 1, 4, 2, 5, 6, 3, 0]


def test_draws_are_spread_evenly():
    fractions = [draw_fraction(0, "x", n) for n in range(4000)]
    assert all(0 <= fraction < 1 for fraction in fractions)
    assert sum(fraction < 0.25 for fraction in fractions) / 4000 == pytest.approx(
        0.25, abs=0.03
    )
    assert {draw_index(5, n) for n in range(100)} == set(range(5))
