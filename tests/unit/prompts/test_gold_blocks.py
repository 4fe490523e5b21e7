"""Every real gold patch as search-replace blocks, and back to the identical tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from damage import applied, synthesised
from shorthand import extract_patch, render_answer

from swebench_trainer.types import Instance


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"),
    [("SWE-bench_Verified_test.parquet", 500), ("SWE-bench_dev.parquet", 225)],
)
def test_gold_patches_survive_the_form(tmp_path, name, rows) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = os.environ.get("SWEBENCH_TRAINER_DATA")
    if not folder:
        pytest.skip("SWEBENCH_TRAINER_DATA names no folder with the real rows")
    table = parquet.read_table(Path(folder, name), columns=["instance_id", "patch"])
    survived = 0
    for row in table.to_pylist():
        base = tmp_path / row["instance_id"]
        files = synthesised(row["patch"])
        base.mkdir()
        for path, content in files.items():
            (base / path).parent.mkdir(parents=True, exist_ok=True)
            (base / path).write_bytes(content)
        instance = Instance(
            **row,
            repo="demo/demo",
            base_commit="0" * 40,
            problem_statement="",
            snapshot=str(base),
        )
        answer = render_answer("search-replace", instance)
        extraction = extract_patch("search-replace", answer, instance)
        assert extraction.status == "ok", row["instance_id"]
        expected = applied(files, row["patch"])
        assert expected
        assert applied(files, extraction.patch) == expected, row["instance_id"]
        survived += 1
    assert survived == rows
