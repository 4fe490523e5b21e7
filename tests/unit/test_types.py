"""Rows become values and values rows."""

import json
import time

import pytest

from swebench_trainer.testing import an_instance, some_pairs
from swebench_trainer.types import (
    Candidate,
    Instance,
    Pair,
    Status,
    Verdict,
    as_row,
    from_row,
)

VALUES = [
    an_instance(FAIL_TO_PASS=("a", "b"), images=("x",)),
    Candidate("i", 0, "m", "text", "patch"),
    Verdict("i", 0, "m", Status.RESOLVED, {"resolved": True}, flags=("flaky",)),
    some_pairs()[0],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_row_gives_back_its_value(value):
    row = json.loads(json.dumps(as_row(value)))
    again = from_row(type(value), row)
    assert again == value
    for name in ("status", "flags", "FAIL_TO_PASS", "extraction", "chosen_source"):
        assert type(getattr(again, name, None)) is type(getattr(value, name, None))


def test_unknown_columns_are_ignored():
    row = as_row(VALUES[2]) | {"color": "red"}
    assert from_row(Verdict, row) == VALUES[2]


def test_columns_with_a_default_may_be_missing():
    row = {"instance_id": "i", "sample": 0, "model": "m", "status": "oom"}
    assert from_row(Verdict, row) == Verdict("i", 0, "m", Status.OOM)


def test_a_missing_column_is_named():
    row = as_row(VALUES[0])
    del row["base_commit"]
    with pytest.raises(KeyError, match="base_commit"):
        from_row(Instance, row)


@pytest.mark.parametrize(("column", "value"), [("status", "won"), ("sample", "one")])
def test_a_value_of_the_wrong_type_is_refused(column, value):
    with pytest.raises(ValueError, match=column):
        from_row(Verdict, as_row(VALUES[2]) | {column: value})


def test_answers_of_older_rows_are_read():
    row = as_row(VALUES[3]) | {"chosen_source": "gold", "rejected_source": "sample:3"}
    pair = from_row(Pair, row)
    assert pair.chosen_source.is_gold and pair.rejected_source.sample == 3


def test_a_hundred_thousand_rows_take_seconds():
    row = as_row(VALUES[0])
    from_row(Instance, row)
    start = time.process_time()
    for _ in range(10_000):
        from_row(Instance, row)
    assert time.process_time() - start < 1
