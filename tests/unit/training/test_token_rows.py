from __future__ import annotations

import pytest

from swebench_trainer.errors import StageError
from swebench_trainer.training.tokens.rows import Encoded, fit_rows

SHORT = Encoded("short", [1] * 5, ([2] * 3,))
LONG = Encoded("long", [1] * 5, ([2] * 3, [3] * 6))


def test_a_row_may_have_exactly_the_maximum_length():
    kept, _ = fit_rows([SHORT], 8, 0.0, end=2)
    assert kept == [SHORT]


def test_rows_that_are_too_long_are_dropped_and_counted():
    kept, audit = fit_rows([SHORT, LONG], 10, 0.5, end=2)
    assert kept == [SHORT]
    assert audit == {
        "rows": 2,
        "kept": 1,
        "dropped": ["long"],
        "fully_masked": [],
        "longest": 11,
        "longest_kept": 8,
        "altered": [],
        "trained_tokens": 3,
        "eos_trained": True,
    }


@pytest.mark.parametrize(
    ("rows", "share", "message"),
    [
        ([], 1.0, "No rows"),
        ([SHORT, LONG], 0.4, "1 of 2 rows are longer than 10 tokens"),
        ([LONG], 1.0, "the longest has 11"),
    ],
)
def test_too_few_rows_are_an_error(rows, share, message):
    with pytest.raises(StageError, match=message):
        fit_rows(rows, 10, share, end=2)


def test_an_answer_without_its_end_token_is_reported():
    _, audit = fit_rows([SHORT], 10, 0.0, end=9)
    assert not audit["eos_trained"]
