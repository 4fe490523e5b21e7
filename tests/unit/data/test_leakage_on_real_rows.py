"""What the leakage guard finds, and does not find, in SWE-bench itself."""

import os
from pathlib import Path

import pytest

from swebench_trainer.data.leakage import find_leakage, public_test
from swebench_trainer.data.metadata import InstanceSet, metadata_of
from swebench_trainer.data.rows import RowsSource, RowsTable

DATA = os.environ.get("SWEBENCH_TRAINER_DATA", "")
pytestmark = pytest.mark.skipif(
    not DATA, reason="SWEBENCH_TRAINER_DATA names no folder with SWE-bench data"
)


def load(name):
    path = str(Path(DATA, name))
    return list(RowsSource(RowsTable(use="rows", path=path)).load().instances)


def findings(heldout, train):
    return find_leakage(InstanceSet(heldout), InstanceSet(train)).findings


def test_verified_is_a_public_test_split_without_duplicates():
    rows = load("SWE-bench_Verified_test.parquet")
    assert findings(rows[::2], rows[1::2]) == []
    assert {public_test(metadata_of(i)) for i in rows} == {"SWE-bench"}


def test_dev_has_one_duplicate_and_no_overlap_with_verified():
    dev = load("SWE-bench_dev.parquet")
    ids = ("pylint-dev__astroid-1959", "pylint-dev__astroid-1962")
    heldout = [i for i in dev if i.instance_id == ids[0]]
    found = findings(heldout, [i for i in dev if i not in heldout])
    assert {(f.heldout, *f.train) for f in found} == {ids}
    assert {f.reason for f in found} == {"the same gold patch", "the same issue text"}
    assert findings(load("SWE-bench_Verified_test.parquet"), dev) == []
    assert {public_test(metadata_of(i)) for i in dev} == {""}
