"""Every real gold patch as search-replace blocks, and back to the identical tree."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from damage import Memory, applied, synthesized

from swebench_trainer.answers.forms import extract_patch, render_answer
from swebench_trainer.contents.repositories import Repositories
from swebench_trainer.types import Instance

ROWS = [("SWE-bench_Verified_test.parquet", 500), ("SWE-bench_dev.parquet", 225)]
COLUMNS = ["instance_id", "repo", "base_commit", "patch"]


def rows_of(name: str) -> list[Mapping[str, str]]:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = os.environ.get("SWEBENCH_TRAINER_DATA")
    if not folder:
        pytest.skip("SWEBENCH_TRAINER_DATA names no folder with the real rows")
    return parquet.read_table(Path(folder, name), columns=COLUMNS).to_pylist()


def survives(row: Mapping[str, str], files: Mapping[str, bytes], tree) -> None:
    """Assert that the rendered blocks become a patch with the same result as gold."""
    instance = Instance(**row, problem_statement="")
    expected = applied(files, row["patch"])
    assert expected
    for context in (None, 0):
        answer = render_answer("search-replace", instance, tree, context=context)
        extracted = extract_patch("search-replace", answer, tree)
        assert str(extracted.extraction) == "ok", row["instance_id"]
        assert applied(files, extracted.patch) == expected, row["instance_id"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), ROWS)
def test_gold_patches_survive_the_form(name, number) -> None:
    """In files with only the lines of the patch."""
    rows = rows_of(name)
    for row in rows:
        files = synthesized(row["patch"])
        survives(row, files, Memory(files))
    assert len(rows) == number


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), ROWS)
def test_gold_patches_survive_the_form_in_their_repositories(name, number) -> None:
    rows = rows_of(name)
    template = os.environ.get("SWEBENCH_TRAINER_REPOSITORIES")
    if not template:
        pytest.skip("SWEBENCH_TRAINER_REPOSITORIES says not where the clones are")
    with closing(Repositories(template)) as repositories:
        for row in rows:
            tree = repositories.tree(row["repo"], row["base_commit"])
            named = {path for path in synthesized(row["patch"])}
            files = {path: content for path in named if (content := tree.read(path))}
            survives(row, files, tree)
    assert len(rows) == number
