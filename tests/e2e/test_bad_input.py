"""User errors: a paragraph and a next step, never a traceback."""

import json

import pytest


def test_an_unknown_key_is_an_error(shell, recipe):
    out = shell.run(shell.write(recipe.replace("[sft]", "[sft]\nepoch = 2")), code=2)
    assert "[sft] has no key 'epoch'" in out and "did you mean 'epochs'?" in out


def test_a_missing_recipe_and_an_unknown_command_are_errors(shell):
    assert "Recipe none.toml does not exist" in shell.run("none.toml", code=2)
    assert "No such command" in shell.run("bake", code=2)


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        ('use = "task-repo"\npath = ', 'use = "task-repo"\npath = "none" # ', 1, "not a task repo"),
        ('use = "task-repo"\npath = ', 'use = "rows"\npath = "none.jsonl" # ', 1, "none.jsonl"),
        ('use = "believer"', 'use = "believer"\ndoubts = "all"', 1, "None of 5 instances was admitted; the first"),
        ('use = "parrot"', 'use = "parrot"\nspoil = 0.0', 1, "pairs RECIPE --dry-run"),
        ('use = "parrot"', 'use = "cockatoo"', 2, "no plugin called 'cockatoo' is installed"),
        ("include = [", 'holdout = { by = "repo", fraction = 0.2 }\ninclude = ["quickstart__foldline-4"]\nexclude = [', 1, "split by instance"),
        ("include = [", 'include = ["missing-1"]\nexclude = [', 1, "missing-1"),
    ],
)  # fmt: skip
def test_a_failed_run_prints_the_reason(shell, recipe, old, new, code, message):
    assert old in recipe
    assert message in shell.run(shell.write(recipe.replace(old, new, 1)), code=code)


def test_a_failing_gold_patch_is_counted_and_the_run_continues(shell, recipe):
    doubted = "quickstart__foldline-1"
    text = recipe.replace('use = "believer"', f'use = "believer"\ndoubts = "{doubted}"')
    out = shell.run(shell.write(text))
    assert "admitted 4  refused 1" in out
    rows = {r["instance_id"]: r for r in shell.rows("admit", "admission.jsonl")}
    assert rows[doubted]["reason"] == "gold is unresolved in 1 of 1 runs"
    assert doubted not in {
        r["instance_id"] for r in shell.rows("generate", "candidates.jsonl")
    }
    totals = shell.json("evaluate", "summary.json")["splits"]
    assert sum(s["models"]["sft"]["total"] for s in totals.values()) == 4


def predictions(shell, *rows, name="preds.jsonl"):
    path = shell.folder / name
    path.write_text(
        "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    )
    return name


def prediction(number=1, **changes):
    return {
        "instance_id": f"quickstart__foldline-{number}",
        "model_name_or_path": "m",
        "model_patch": "diff --git a/x b/x\n",
        **changes,
    }


@pytest.fixture
def grade(shell):
    from .conftest import QUICKSTART

    def grade(*files, code=0, out="out"):
        return shell.run(
            *("grade", "--data", str(QUICKSTART), "--out", out, "--grader", "believer"),
            *(part for file in files for part in ("--predictions", file)),
            code=code,
        )

    return grade


def test_a_broken_line_of_predictions_is_named(shell, grade):
    rows = [prediction() for _ in range(20)]
    rows[16] = '{"instance_id": '
    out = grade(predictions(shell, *rows), code=1)
    assert "preds.jsonl" in out and "line 17" in out


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (prediction(99), "the data has no instance 'quickstart__foldline-99'"),
        (prediction(model_name_or_path=None), "model_name_or_path"),
        ({"model_patch": ""}, "instance_id"),
        ("[]", "line 2"),
    ],
)
def test_a_wrong_row_of_predictions_is_named(shell, grade, row, message):
    out = grade(predictions(shell, prediction(), row), code=1)
    assert message in out and "line 2" in out


def test_grading_takes_many_predictions_per_instance(shell, grade):
    from swebench.task.repo import load_task_repo

    from .conftest import QUICKSTART

    gold = {t["instance_id"]: t["patch"] for t in load_task_repo(QUICKSTART)}
    name = "quickstart__foldline-1"
    file = predictions(
        shell,
        prediction(1),
        prediction(1, model_patch=gold[name]),
        prediction(2, model_patch=""),
        prediction(3, model_patch="nonsense"),
    )
    grade(file)
    rows = [
        json.loads(line)
        for line in (shell.folder / "out/verdicts.jsonl").read_text().splitlines()
    ]
    assert [(r["instance_id"][-1], r["sample"], r["status"]) for r in rows] == [
        ("1", 0, "unresolved"),
        ("1", 1, "resolved"),
        ("2", 0, "no_patch"),
        ("3", 0, "not_applied"),
    ]
    report = json.loads((shell.folder / "out/report.json").read_text())
    assert report["resolved_ids"] == [name]
    assert report["empty_patch_ids"] == ["quickstart__foldline-2"]
    assert report["error_ids"] == ["quickstart__foldline-3"]
    assert report["total_instances"] == 24


def test_missing_and_empty_predictions_are_errors(grade, shell):
    assert "none.jsonl" in grade("none.jsonl", code=1)
    assert "no predictions" in grade(predictions(shell), code=2)


def test_other_predictions_do_not_replace_a_grading(shell, grade):
    from swebench.task.repo import load_task

    from .conftest import QUICKSTART

    gold = load_task(QUICKSTART / "tasks" / "quickstart__foldline-1")["patch"]

    def statuses():
        text = (shell.folder / "out/verdicts.jsonl").read_text()
        return [json.loads(line)["status"] for line in text.splitlines()]

    grade(predictions(shell, prediction(1)))
    other = predictions(shell, prediction(1, model_patch=gold))
    assert "different predictions" in grade(other, code=1)
    assert statuses() == ["unresolved"]


def test_the_directory_of_another_grading_is_refused(shell, grade):
    file = predictions(shell, prediction(1))
    grade(file)
    arguments = ("--data", str(shell.folder / "rows.jsonl"), "--out", "out")
    row = {
        "instance_id": "quickstart__foldline-1",
        "repo": "a/b",
        "base_commit": "c",
        "problem_statement": "p",
        "patch": "d",
        "eval_script": "true",
        "log_parser": "parse_log_pytest",
        "FAIL_TO_PASS": ["t"],
    }
    (shell.folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    out = shell.run(
        *("grade", *arguments, "--predictions", file, "--grader", "believer"), code=1
    )
    assert "different data" in out and "--out" in out


def test_unusable_directories_are_named(shell, recipe, grade):
    name = shell.write(recipe)
    (shell.folder / "afile").write_text("")
    assert "afile" in shell.run(name, "--runs-dir", "afile", code=1)
    assert "afile" in shell.run("new", "quickstart", "--to", "afile", code=1)
    shell.run(name, "--until", "prepare")
    out = grade(predictions(shell, prediction()), out="runs/small", code=1)
    assert "is not a grading" in out


def test_a_missing_file_of_rows_is_an_error(shell):
    file = predictions(shell, prediction())
    arguments = ("--predictions", file, "--out", "out")
    out = shell.run("grade", "--data", "../rows.csv", *arguments, code=1)
    assert "rows.csv" in out


def test_a_missing_report_is_an_error(shell, recipe):
    shell.run(shell.write(recipe), "--until", "prepare")
    assert "has not finished" in shell.run("report", "runs/small", code=1)
    assert "is not a run directory" in shell.run("report", "runs/large", code=1)


def flip_weights(shell):
    path = shell.stage("sft") / "model/memory.json"
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    return path


def shorten(stage, file):
    def change(shell):
        path = shell.stage(stage) / file
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
        return path

    return change


def test_changed_files_of_finished_stages_are_never_used(shell, recipe):
    name = shell.write(recipe)
    shell.run(name, "--until", "generate")
    for change, following in (
        (shorten("prepare", "sft.jsonl"), ("--redo", "sft", "--until", "sft")),
        (shorten("generate", "candidates.jsonl"), ("--until", "grade")),
        (flip_weights, ("--redo", "generate", "--until", "generate")),
    ):
        kept = {p: p.read_bytes() for p in shell.folder.rglob("stages/*/*.jsonl")}
        weights = (shell.stage("sft") / "model/memory.json").read_bytes()
        path = change(shell)
        out = " ".join(shell.run(name, *following, code=1).split())
        assert f"{path.name} has changed since stage" in out
        assert f"--redo {path.relative_to(shell.stage('x').parent).parts[0]}" in out
        path.write_bytes(kept.get(path, weights))
        shell.run(name, "--until", "generate")
    shell.run(name)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"status": "resolved"', '"status": "resolvee"', "column 'status'"),
        ('"report"', '"rapport"', "column 'report' is missing"),
    ],
)
def test_damaged_verdicts_are_named_with_their_line(shell, recipe, old, new, reason):
    name = shell.write(recipe)
    shell.run(name, "--until", "grade")
    (shell.stage("grade") / "stage.json").unlink()
    path = shell.stage("grade") / "verdicts.jsonl"
    text = path.read_text()
    path.write_text(text.replace(old, new, 1))
    out = " ".join(shell.run(name, "--until", "grade", code=1).split())
    assert "verdicts.jsonl, line" in out and reason in out and "--redo" in out
    first, *others = text.splitlines(keepends=True)
    row = json.loads(first)
    row["status"] = "unresolved" if row["status"] == "resolved" else "resolved"
    path.write_text(first + json.dumps(row) + "\n" + "".join(others))
    out = " ".join(shell.run(name, "--until", "grade", code=1).split())
    assert "line 2 is damaged: it contradicts" in out
