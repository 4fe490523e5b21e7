"""What goes into a run: splits that stay, and training that has not seen the answers."""

import json
import subprocess

import pytest

RECIPE = """\
schema_version = 1
name = "small"
[data]
use = "rows"
path = "rows.jsonl"
holdout = { by = "list", ids = ["django__django-1"] }
[prompt]
answer = "diff"
"""


def row(number, **changes):
    patch = (
        f"diff --git a/x{number}.py b/x{number}.py\n--- a/x{number}.py\n"
        f"+++ b/x{number}.py\n@@ -1 +1 @@\n-a = {number}\n+a = {number + 1}\n"
    )
    return {
        "instance_id": f"django__django-{number}",
        "repo": "django/django",
        "base_commit": f"{number}00000000",
        "problem_statement": f"Number {number} breaks.",
        "patch": patch,
        **changes,
    }


@pytest.fixture
def write(shell):
    def write(*rows, recipe=RECIPE):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (shell.folder / "rows.jsonl").write_text(text)
        return shell.write(recipe)

    return write


TWINS = (
    row(1),
    row(2),
    row(3, patch=row(1)["patch"]),
    row(4, base_commit=row(1)["base_commit"]),
)


def test_leakage_is_refused_until_the_recipe_changes(shell, write):
    out = shell.run(write(*TWINS), code=1)
    assert "django__django-1 and django__django-3: the same gold patch" in out
    assert "leakage.jsonl" in out and 'leakage = "drop"' in out
    (finding,) = shell.rows("prepare", "leakage.jsonl")
    assert (finding["heldout"], finding["train"]) == (
        "django__django-1",
        ["django__django-3"],
    )

    out = shell.run("recipe.toml", "--set", 'data.leakage="drop"')
    assert "leakage 1 findings" in out
    assert len(shell.rows("prepare", "sft.jsonl")) == 2
    assert [r["instance_id"] for r in shell.rows("prepare", "dropped.jsonl")] == [
        "django__django-3"
    ]
    assert shell.json("prepare", "leakage.json")["dropped"] == 1


def test_dropping_every_training_instance_is_an_error(shell, write):
    twins = (row(1), row(3, patch=row(1)["patch"]))
    recipe = RECIPE.replace("holdout", 'leakage = "drop"\nholdout')
    out = shell.run(write(*twins, recipe=recipe), code=1)
    assert "none is left" in out and "leakage.jsonl" in out


def test_allowed_leakage_and_public_tests_are_recorded(shell, write):
    shell.run(
        write(*TWINS, recipe=RECIPE.replace("holdout", 'leakage = "allow"\nholdout'))
    )
    found = shell.json("prepare", "leakage.json")
    figures = shell.json("prepare", "stage.json")["figures"]
    assert figures["trains on the public test of"] == "SWE-bench (3)"
    assert found["policy"] == "allow"
    assert found["reasons"] == {"the same gold patch": 1}
    assert found["public_tests"] == {
        "train": {"SWE-bench": 3},
        "heldout": {"SWE-bench": 1},
    }
    assert len(shell.rows("prepare", "sft.jsonl")) == 3


def test_a_split_can_be_pinned_by_the_list_of_another_run(shell, write):
    by_instance = '{ by = "instance", fraction = 0.3 }'
    old = RECIPE.split("holdout = ")[1].split("\n")[0]
    shell.run(write(*map(row, range(20)), recipe=RECIPE.replace(old, by_instance)))
    pinned = '{ by = "list", file = "runs/small/stages/prepare/heldout.txt" }'
    shell.run(
        write(*map(row, range(40)), recipe=RECIPE.replace(old, pinned)),
        "--name",
        "more",
    )

    def heldout(run):
        rows = shell.rows("prepare", "instances.jsonl", run)
        return {r["instance_id"] for r in rows if r["split"] == "heldout"}

    assert heldout("more") == heldout("small") != set()


def test_the_reasons_are_written_if_no_instance_is_left(shell, write):
    recipe = RECIPE.replace('answer = "diff"', 'use = "oracle"')
    out = shell.run(write(row(1), row(2), recipe=recipe), code=1)
    assert "No instance is left. Dropped: 2 x no place of [contents] has the" in out
    for dropped in shell.rows("prepare", "dropped.jsonl"):
        assert "(task: the row has no files; git: " in dropped["reason"]


def test_rows_without_tests_can_be_trained_on_but_not_graded(shell, write):
    trains = RECIPE + '[model]\nuse = "parrot"\n[sft]\n'
    out = shell.run(write(row(1), row(2), recipe=trains))
    assert "not gradable 2" in out and "rows 1" in out
    graded = trains + '[grade]\nuse = "believer"\n[evaluate]\n'
    name = write(row(1), row(2), recipe=graded)
    out = shell.run(name, "--name", "graded", code=1)
    assert (
        "None of the 1 heldout instances can be graded, but the recipe grades them: "
        "1 x the row has no eval_script, log_parser, FAIL_TO_PASS."
    ) in out


def git(folder, *arguments):
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


def test_missing_files_stop_the_run_until_they_are_available(shell, write):
    origin = shell.folder / "elsewhere" / "django" / "django"
    origin.mkdir(parents=True)
    git(origin, "init", "--quiet")
    (origin / "a.py").write_text("x\n")
    git(origin, "add", ".")
    git(origin, "commit", "--quiet", "--message=one")
    patch = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+{}\n"
    commit = git(origin, "rev-parse", "HEAD")
    rows = [
        row(n, base_commit=commit, patch=patch.format(f"y{n}" * 9)) for n in range(3)
    ]
    contents = '[contents]\nplaces = ["git"]\nrepositories = "mirrors/{repo}"\n'
    by_instance = 'holdout = { by = "instance", fraction = 0.3 }\nleakage = "allow"'
    old = next(line for line in RECIPE.split("\n") if line.startswith("holdout"))
    recipe = RECIPE.replace(old, by_instance).replace(
        'answer = "diff"', 'use = "oracle"'
    )
    write(*rows, row(7, repo="no/where", base_commit=commit), recipe=recipe + contents)

    out = shell.run("recipe.toml", code=1)
    assert "The files of 4 instances are unavailable. 4 x no place of [contents]" in out
    assert 'missing = "drop"' in out
    (shell.folder / "elsewhere").rename(shell.folder / "mirrors")
    out = shell.run("recipe.toml", code=1)
    assert "The files of 1 instances are unavailable" in out
    assert f"no clone of {shell.folder}/mirrors/no/where" in out
    shell.run("recipe.toml", "--set", 'contents.missing="drop"')
    assert len(shell.rows("prepare", "prompts.jsonl")) == 3
    assert [r["instance_id"] for r in shell.rows("prepare", "dropped.jsonl")] == [
        "django__django-7"
    ]


def test_each_instance_has_its_own_context(shell):
    recipe = shell.write(
        """\
schema_version = 1
name = "small"
[data]
use = "generated"
count = 24
graded = 0
heldout = 1
[prompt]
use = "oracle"
search_context = [0, 1]
"""
    )

    def answers():
        rows = shell.rows("prepare", "sft.jsonl")
        return {row["instance_id"]: row["completion"] for row in rows}

    shell.run(recipe)
    drawn = answers()
    alone = {}
    for context in (0, 1):
        shell.run(
            recipe, "--set", f"prompt.search_context={context}", "--redo", "prepare"
        )
        alone[context] = answers()
    taken = {
        context: {name for name, text in drawn.items() if text == found[name]}
        for context, found in alone.items()
    }
    assert taken[0] | taken[1] == drawn.keys()
    assert taken[0] - taken[1] and taken[1] - taken[0]
