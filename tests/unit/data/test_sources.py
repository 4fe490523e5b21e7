"""Sources: accepted rows, dropped rows with reasons, and refused files."""

import csv
import dataclasses
import io
import json
from unittest import mock

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings, strategies as st

from swebench_trainer.data import json_rows
from swebench_trainer.data.json_rows import JsonList
from swebench_trainer.data.rows import RowsSource, RowsTable, read_rows_file
from swebench_trainer.data.task_repo import TaskRepoSource, TaskRepoTable
from swebench_trainer.errors import DataError
from swebench_trainer.store import spool
from swebench_trainer.types import Instance, as_row

ROW = {
    "instance_id": "a__b-1",
    "repo": "a/b",
    "base_commit": "c0ffee",
    "problem_statement": "It breaks.",
    "patch": "diff --git a/x b/x\n",
    "FAIL_TO_PASS": '["t1"]',
    "PASS_TO_PASS": ["t2"],
    "eval_script": "true",
    "log_parser": "parse_log_pytest",
}


def rows_source(path):
    return RowsSource(RowsTable(use="rows", path=str(path)))


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="rows.jsonl"):
        path = tmp_path / name
        if name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif name.endswith(".json"):
            path.write_text(json.dumps(rows))
        else:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return path

    return write


def an_instance_without_defaults():
    """An instance whose every field has a value that no row has by default."""
    values = {
        **{field.name: f"a {field.name}" for field in dataclasses.fields(Instance)},
        **{key: ROW[key] for key in ("instance_id", "repo", "base_commit")},
        **dict.fromkeys(
            (
                "FAIL_TO_PASS",
                "PASS_TO_PASS",
                "images",
                "test_files",
                "dockerfiles",
            ),
            ("one", "two"),
        ),
        "apply_mode": "pro",
        "split": "heldout",
        "contents": "git",
    }
    return Instance(**values)


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.parquet"])
def test_a_prepared_row_keeps_every_field_of_its_instance(write, name):
    instance = an_instance_without_defaults()
    for field in dataclasses.fields(Instance):
        assert getattr(instance, field.name) != field.default
    loaded = rows_source(write(as_row(instance), name=name)).load()
    assert list(loaded.instances) == [instance]


def test_an_invalid_prepared_row_is_dropped_with_its_column(write):
    row = as_row(an_instance_without_defaults())
    bad = {**row, "instance_id": "other__row-1", "apply_mode": "by hand"}
    loaded = rows_source(write(row, bad)).load()
    ((name, reason),) = loaded.dropped
    assert name == "other__row-1"
    assert "apply_mode" in reason


def test_a_hub_dataset_cannot_bring_a_program_for_this_machine():
    row = as_row(an_instance_without_defaults())
    with (
        mock.patch("datasets.load_dataset", return_value=[row]),
        pytest.raises(DataError, match="parser"),
    ):
        RowsSource(RowsTable(use="rows", path="someone/rows")).load()


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.parquet"])
def test_three_file_formats_give_the_same_instance(write, name):
    loaded = rows_source(write(ROW, name=name)).load()
    (instance,) = loaded.instances
    assert (instance.FAIL_TO_PASS, instance.PASS_TO_PASS) == (("t1",), ("t2",))
    assert instance.gradable


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"patch": None}, "column 'patch' is missing or empty"),
        ({"problem_statement": "  "}, "column 'problem_statement' is missing or empty"),
        ({"instance_id": "../../etc"}, "instance_id has characters"),
        ({"instance_id": "a/b"}, "instance_id has characters"),
        ({"FAIL_TO_PASS": "[oops"}, "column 'FAIL_TO_PASS' is not JSON"),
        ({"PASS_TO_PASS": [1]}, "has an item that is not a string"),
        ({"PASS_TO_PASS": 5}, "column 'PASS_TO_PASS' is not a list"),
        ({"FAIL_TO_PASS": "[" * 99999}, "column 'FAIL_TO_PASS' is not JSON"),
        ({"FAIL_TO_PASS": {"t": 1}}, "column 'FAIL_TO_PASS' is not a list"),
        ({"FAIL_TO_PASS": ["\ud800"]}, "has a lone surrogate"),
        ({"patch": "\ud800"}, "column 'patch' has a lone surrogate"),
        ({"eval_script": "\ud800"}, "column 'eval_script' has a lone surrogate"),
        ({"test_patch": ["d"]}, "column 'test_patch' is not a string"),
        ({"image_assets": "{"}, "column 'image_assets' is not JSON"),
        ({"image_assets": [1]}, "column 'image_assets' is not an object"),
        ({"image_assets": {"patch": "x"}}, "has a value that is not a list"),
        ({"image_assets": {"patch": [{"path": 5}]}}, "is not a string"),
        (
            {"image_name": "x/swesmith.x86_64.a", "patch": "@@ -1 +1 @@\nx"},
            "incomplete",
        ),
        (
            {"image_name": "x/swesmith.x86_64.a", "patch": None},
            "column 'patch' is missing",
        ),
        (
            {"base_commit": "--output=/etc/x"},
            "column 'base_commit' is not a valid name",
        ),
        *(
            ({"repo": repo}, "repo is not owner/name")
            for repo in (
                "a/b\0",
                "o/../x",
                "a b/c;touch owned",
                "<script>/y",
                "-o/x",
                "o/",
            )
        ),
        ({}, "duplicates the instance_id of an earlier row"),
    ],
)
def test_an_unusable_row_is_dropped_with_the_reason(write, change, reason):
    loaded = rows_source(write(ROW, {**ROW, **change})).load()
    assert len(loaded.instances) == 1
    ((_, why),) = loaded.dropped
    assert reason in why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"FAIL_TO_PASS": "[]"}, "the row has no FAIL_TO_PASS"),
        ({"eval_script": None, "log_parser": ""}, "the row has no eval_script, log_parser"),
        ({"image_assets": '{"test_patch": [{"path": "e.png", "url": "u"}]}'}, "need files that no patch carries"),
        ({"image_assets": {"problem_statement": ["u"], "patch": []}}, ""),
    ],
)  # fmt: skip
def test_ungradable_rows_have_a_reason(write, changes, why):
    (instance,) = rows_source(write({**ROW, **changes})).load().instances
    assert why in instance.ungradable
    assert instance.gradable == (not instance.ungradable) == (why == "")


CLASSIC = {k: v for k, v in ROW.items() if k not in ("eval_script", "log_parser")}
BUG = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n same\n-right\n+wrong\n"
FIX = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n same\n-wrong\n+right\n"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # SWE-bench before swebench 5: lists as JSON
        ({**CLASSIC, "environment_setup_commit": "e"}, {"FAIL_TO_PASS": ("t1",)}),
        # SWE-bench's train split
        ({**CLASSIC, "FAIL_TO_PASS": "[]", "PASS_TO_PASS": "[]", "test_patch": ""}, {"FAIL_TO_PASS": ()}),
        # SWE-Gym: lists as lists
        ({**CLASSIC, "FAIL_TO_PASS": ["t1"], "hints_text": ""}, {"FAIL_TO_PASS": ("t1",)}),
        # SWE-rebench
        ({**CLASSIC, "docker_image": "r/i", "install_config": {"python": "3.9"}, "meta": {"is_lite": True}}, {"image": "r/i"}),
        ({**CLASSIC, "install_config": {}, "requirements": "numpy==1.26"}, {"requirements": ""}),
    ],
)  # fmt: skip
def test_rows_of_related_data_sets_are_accepted_as_ungradable(write, row, expected):
    (instance,) = rows_source(write(row)).load().instances
    assert {name: getattr(instance, name) for name in expected} == expected
    assert "eval_script" in instance.ungradable


def smith(**changes):
    row = {
        **CLASSIC,
        "instance_id": "a__b.c0ffee00.lm_rewrite__x1",
        "repo": "swesmith/a__b.c0ffee00",
        "patch": BUG,
        "image_name": "jyangballin/swesmith.x86_64.a_1776_b.c0ffee00",
        **changes,
    }
    return {k: v for k, v in row.items() if v is not None}


def test_swe_smith_patches_are_reversed(write):
    rows = [smith(base_commit=None), smith(instance_id="older", base_commit="bead")]
    branch, older = rows_source(write(*rows)).load().instances
    assert branch.patch == older.patch == FIX
    assert branch.base_commit == "a__b.c0ffee00.lm_rewrite__x1"
    assert older.base_commit == "bead"
    assert branch.image == "jyangballin/swesmith.x86_64.a_1776_b.c0ffee00"


def test_swe_smith_rows_without_an_issue_are_dropped(write):
    loaded = rows_source(
        write(smith(), smith(instance_id="x", problem_statement=""))
    ).load()
    assert loaded.dropped == (("x", "column 'problem_statement' is missing or empty"),)


def test_swe_smith_is_recognized_by_its_mirrors_too(write):
    (instance,) = rows_source(write(smith(image_name=None))).load().instances
    assert instance.patch == FIX


def test_unrepresentable_parquet_cells_drop_the_row(tmp_path):
    bad = pyarrow.array([b"1", b"\xff\xfe"], pyarrow.binary())
    days = pyarrow.array([0, 2**62], pyarrow.timestamp("us"))
    rows = [{**ROW, "instance_id": f"a__b-{n}"} for n in range(2)]
    for name, cells in (
        ("version", pyarrow.Array.from_buffers(pyarrow.string(), 2, bad.buffers())),
        ("created_at", days),
    ):
        table = pyarrow.Table.from_pylist(rows).append_column(name, cells)
        pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
        loaded = rows_source(tmp_path / "r.parquet").load()
        assert [i.instance_id for i in loaded.instances] == ["a__b-0"]
        assert loaded.dropped == (("a__b-1", f"column {name!r} is not a string"),)


def test_multimodal_rows_keep_their_image_urls(write):
    assets = {"problem_statement": ["http://u/1.png", {"url": "http://u/2.png"}]}
    row = {**ROW, "image_assets": json.dumps(assets)}
    (instance,) = rows_source(write(row)).load().instances
    assert instance.images == ("http://u/1.png", "http://u/2.png")
    assert instance.problem_statement == "It breaks." and instance.gradable


def test_a_source_without_usable_rows_raises_with_the_first_reason(write):
    with pytest.raises(DataError, match="column 'repo' is missing"):
        rows_source(write({**ROW, "repo": ""})).load()


def test_invalid_json_raises_with_the_line(write):
    path = write(*[{**ROW, "instance_id": f"a__b-{n}"} for n in range(20)])
    lines = path.read_text().split("\n")
    lines[16] = '{"instance_id": '
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"rows\.jsonl, line 17: not JSON"):
        rows_source(path).load()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.parquet", b"not parquet"),
        ("r.jsonl", b"\xff\xfe"),
        ("r.json", b"{}"),
        ("r.json", b"["),
        ("r.jsonl", b"[1]\n"),
        ("r.jsonl", b'{"a": ' + b"9" * 5000 + b"}"),
        ("r.jsonl", b"[" * 99999),
        ("r.json", b"[" * 99999),
        ("r.json", b'[{"a": ' + b"9" * 5000 + b"}]"),
        ("r.json", b"\xff"),
        ("r.json", b""),
        ("r.json", b"[1]"),
        ("r.csv", b"instance_id,repo\na\n"),
        ("r.csv", b"\xff\xfe"),
        ("r.csv", b'a,b\n"x'),
        ("r.csv", b""),
        ("r.parquet", b""),
        ("r.jsonl", b""),
    ],
)
def test_unreadable_files_raise_with_the_file_name(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        rows_source(path).load()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[{"a": 1},\n\n{"b": }]', 3),
        ('[{"a": 1}\n{"b": 2}]', 2),
        ('\n[{"a": 1}\n,\n]', 4),
        ('[{"a": 1}]\nmore', 2),
        ('[{"a": 1},\n{"b": "cut', 2),
        ('\n{"a": 1}', 2),
    ],
)
def test_an_invalid_json_list_raises_with_the_line(tmp_path, content, line):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"r\.json, line {line}: not JSON"):
        list(read_rows_file(path))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=9), st.text(max_size=90), max_size=4)),
    st.integers(1, 40),
    st.sampled_from([None, 1]),
)
def test_a_json_list_can_be_read_in_chunks_of_any_size(rows, size, indent):
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    with mock.patch.object(json_rows, "_READ", size):
        items = JsonList(io.StringIO(text))
        assert list(items) == rows
    assert items.line == text.count("\n") + 1


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.csv", "r.parquet"])
def test_files_are_read_with_bounded_memory(tmp_path, monkeypatch, name):
    import tracemalloc

    monkeypatch.setattr(spool, "_IN_MEMORY", 1 << 16)
    monkeypatch.setattr(json_rows, "_READ", 1 << 16)
    rows = [
        {**CLASSIC, "instance_id": f"a__b-{n}", "PASS_TO_PASS": "[]", "patch": f"{n} " * 9000}
        for n in range(800)
    ]  # fmt: skip
    path = tmp_path / name
    if name.endswith(".csv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith(".parquet"):
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, path, row_group_size=50)
    else:
        lines = (json.dumps(row) for row in rows)
        path.write_text("\n".join(lines) if "jsonl" in name else f"[{','.join(lines)}]")
    size = sum(len(row["patch"]) for row in rows)
    del rows
    tracemalloc.start()
    try:
        loaded = rows_source(path).load()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(loaded.instances) == 800
    assert peak < size / 4


def test_missing_files_raise_with_a_hint_about_relative_paths(tmp_path):
    with pytest.raises(DataError, match="relative to the recipe"):
        rows_source(tmp_path / "none.jsonl").load()
    with pytest.raises(DataError, match="not a task repo"):
        TaskRepoSource(TaskRepoTable(use="task-repo", path=tmp_path)).load()


def test_only_damaged_tasks_are_dropped(tmp_path):
    import shutil

    from swebench_trainer.recipe.shipped import folder

    copy = tmp_path / "repo"
    shutil.copytree(folder() / "quickstart", copy)
    tasks = sorted((copy / "tasks").iterdir())
    (tasks[0] / "eval.sh").unlink()
    (tasks[1] / "task.yaml").write_text("{")
    (tasks[2] / "tests.json").write_text("[")
    loaded = TaskRepoSource(TaskRepoTable(use="task-repo", path=copy)).load()
    assert {name for name, _ in loaded.dropped} == {t.name for t in tasks[:3]}
    assert len(loaded.instances) == len(tasks) - 3
    assert all(i.snapshot.endswith(f"{i.instance_id}/repo") for i in loaded.instances)


def test_the_digest_depends_on_the_content(write, tmp_path):
    one = rows_source(write(ROW)).digest()
    assert rows_source(write(ROW)).digest() == one
    assert rows_source(write({**ROW, "repo": "c/d"})).digest() != one
