"""Intervals and tests compared with values from the literature and from enumeration."""

from __future__ import annotations

import pytest

from swebench_trainer.reporting.metrics import PairedResult, paired, wilson


@pytest.mark.parametrize(
    ("resolved", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_intervals_match_published_values(resolved, total, low, high) -> None:
    assert wilson(resolved, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_intervals_are_exact_at_the_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0
    for bad in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="not a rate"):
            wilson(*bad)


def outcomes(both: int, only_first: int, only_second: int, neither: int):
    cells = [(True, True)] * both + [(True, False)] * only_first
    cells += [(False, True)] * only_second + [(False, False)] * neither
    first = {str(i): a for i, (a, _) in enumerate(cells)}
    return first, {str(i): b for i, (_, b) in enumerate(cells)}


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 5, 2 / 32),
        (6, 0, 2 / 64),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_paired_results_match_the_exact_mcnemar_test(
    only_first, only_second, p_value
) -> None:
    result = paired(*outcomes(4, only_first, only_second, 7))
    assert result == PairedResult(4, only_first, only_second, 7, pytest.approx(p_value))


def test_paired_results_are_exact_for_many_instances() -> None:
    assert 0 < paired(*outcomes(0, 700, 800, 0)).p_value < 0.02


def test_paired_models_need_the_same_instances() -> None:
    with pytest.raises(ValueError, match="same instances"):
        paired({"a": True}, {"b": True})
