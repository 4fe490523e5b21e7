"""How often gold patches have a flag that depends only on the patch."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from swebench_trainer.grading.trust.patch_flags import (
    has_runner_code,
    has_unsafe_path,
    touches_tests,
)
from swebench_trainer.patches.hostile_diff import patched_paths
from swebench_trainer.types import Instance

COLUMNS = ("instance_id", "repo", "base_commit", "patch", "test_patch", "eval_script")


def instances(name: str) -> list[Instance]:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = os.environ.get("SWEBENCH_TRAINER_DATA")
    if not folder:
        pytest.skip("SWEBENCH_TRAINER_DATA names no folder with the real rows")
    rows = parquet.read_table(Path(folder, name), columns=list(COLUMNS)).to_pylist()
    return [Instance(**row, problem_statement="") for row in rows]


@pytest.mark.parametrize(
    ("name", "flagged"),
    [
        # setup.cfg, which also mentions pytest; sys.exit, _pytest twice, unittest
        ("SWE-bench_Verified_test.parquet", {"tests": 1, "code": 5}),
        # setup.py four times; sys.exit three times, atexit, sys.modules, _getframe
        ("SWE-bench_dev.parquet", {"tests": 4, "code": 6}),
    ],
)
def test_few_gold_patches_have_a_flag(name: str, flagged: dict[str, int]) -> None:
    found: Counter[str] = Counter()
    for instance in instances(name):
        patch = instance.patch
        found["tests"] += touches_tests(instance, patch)
        found["paths"] += has_unsafe_path(patch)
        found["code"] += has_runner_code(patch, gold="")
    assert +found == flagged


@pytest.mark.parametrize(
    "name", ["SWE-bench_Verified_test.parquet", "SWE-bench_dev.parquet"]
)
def test_every_test_patch_has_a_flag(name: str) -> None:
    """As the patch of a candidate: it changes exactly the files that are reset."""
    for instance in instances(name):
        assert touches_tests(instance, instance.test_patch), instance.instance_id


@pytest.mark.parametrize(
    "name", ["SWE-bench_Verified_test.parquet", "SWE-bench_dev.parquet"]
)
def test_paths_match_those_of_unidiff(name: str) -> None:
    unidiff = pytest.importorskip("unidiff")
    for instance in instances(name):
        for patch in (instance.patch, instance.test_patch):
            files = unidiff.PatchSet(patch)
            names = {file.path for file in files} | {
                file.source_file.removeprefix("a/") for file in files
            }
            assert names - {"/dev/null"} <= set(patched_paths(patch))
