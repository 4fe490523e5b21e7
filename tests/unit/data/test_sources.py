"""Sources: what is taken, what is dropped and why, what is refused."""

import json

import pytest

from swebench_trainer.data.rows import RowsSource, RowsTable
from swebench_trainer.data.task_repo import TaskRepoSource, TaskRepoTable
from swebench_trainer.errors import DataError

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
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return path

    return write


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.parquet"])
def test_the_three_file_forms_give_the_same_instance(write, name):
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
        ({"FAIL_TO_PASS": "[oops"}, "column 'FAIL_TO_PASS' is not a JSON list"),
        ({"PASS_TO_PASS": [1]}, "holds something that is not a string"),
        ({"PASS_TO_PASS": 5}, "column 'PASS_TO_PASS' is not a list"),
        ({}, "row 2 repeats this instance_id"),
    ],
)
def test_an_unusable_row_is_dropped_with_its_reason(write, change, reason):
    loaded = rows_source(write(ROW, {**ROW, **change})).load()
    assert len(loaded.instances) == 1
    ((_, why),) = loaded.dropped
    assert reason in why


def test_a_row_without_tests_is_kept_but_not_gradable(write):
    row = {k: v for k, v in ROW.items() if k != "FAIL_TO_PASS"}
    (instance,) = rows_source(write(row)).load().instances
    assert not instance.gradable


def test_no_usable_row_is_an_error_with_the_first_reason(write):
    with pytest.raises(DataError, match="column 'repo' is missing"):
        rows_source(write({**ROW, "repo": ""})).load()


def test_broken_json_names_the_line(write):
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
        ("r.jsonl", b""),
    ],
)
def test_unreadable_files_are_errors_that_name_the_file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        rows_source(path).load()


def test_missing_files_say_how_paths_are_read(tmp_path):
    with pytest.raises(DataError, match="relative to the recipe"):
        rows_source(tmp_path / "none.jsonl").load()
    with pytest.raises(DataError, match="not a task repo"):
        TaskRepoSource(TaskRepoTable(use="task-repo", path=tmp_path)).load()


def test_a_damaged_task_is_dropped_and_the_others_are_kept(tmp_path):
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


def test_the_digest_follows_the_content(write, tmp_path):
    one = rows_source(write(ROW)).digest()
    assert rows_source(write(ROW)).digest() == one
    assert rows_source(write({**ROW, "repo": "c/d"})).digest() != one
