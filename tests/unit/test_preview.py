"""`swebench-train preview` on rows and tasks, in this process."""

from __future__ import annotations

import json
import tempfile

import pytest

from swebench_trainer.__main__ import run_command_line

TINY = 'name = "builtin:tiny"\nquantization = "none"\nlora = false'
PATCH = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n"
ROWS = [
    {
        "instance_id": f"demo__demo-{number}",
        "repo": f"demo/{number % 2}",
        "base_commit": "0" * 40,
        "problem_statement": "It breaks. " * 10 * number,
        "patch": PATCH,
    }
    for number in range(1, 7)
]


@pytest.fixture
def preview(tmp_path, monkeypatch, capsys):
    """Writes rows and a recipe, runs the command, returns its exit code and output."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def call(*arguments, rows=ROWS, model=f"[model]\n{TINY}", more="[sft]"):
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        (tmp_path / "recipe.toml").write_text(
            'schema_version = 1\nname = "x"\n[data]\nuse = "rows"\npath = "rows.jsonl"\n'
            'holdout = { fraction = 0.5 }\nleakage = "allow"\n[prompt]\nanswer = "diff"\nmax_tokens = 120\n'
            f"{model}\n{more}\n"
        )
        before = {path.name for path in tmp_path.iterdir()}
        code = run_command_line(["preview", "recipe.toml", *arguments])
        assert {path.name for path in tmp_path.iterdir()} == before
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def titles(out):
    return [
        line.split(" ")[0] for line in out.splitlines() if line.startswith("demo__")
    ]


def test_samples_can_be_chosen(preview):
    shown = {number: titles(preview("-n", number)[1]) for number in ("0", "2", "9")}
    assert [len(names) for names in shown.values()] == [0, 2, 6]
    assert shown["9"][:2] == shown["2"]
    assert titles(preview("--set", "seed=3", "-n", "6")[1]) != shown["9"]
    named = preview("--instance", "demo__demo-3", "--instance", "demo__demo-1")[1]
    assert titles(named) == ["demo__demo-3", "demo__demo-1"]


def test_learned_prompts_are_marked(preview):
    def learned(more):
        lines = preview("--split", "train", "-n", "1", more=more)[1].splitlines()
        return {line.strip("▌ ") for line in lines if line.strip().startswith("▌")}

    answer, both = learned("[sft]"), learned("[sft]\nprompt_loss = 0.2")
    assert answer and answer < both
    assert "<|im_start|>user" in both - answer


def test_a_split_can_be_chosen(preview):
    code, out = preview("--split", "heldout", "-n", "9")
    assert code == 0 and len(titles(out)) == 3
    assert ", context issue" in out
    assert "heldout: prompt" in out and "train: prompt" not in out
    assert "\n▌" not in out and "3 instances, 0 with an answer to train on" in out
    assert preview("--split", "test")[0] == 2


def test_too_long_examples_are_counted_and_named(preview):
    code, out = preview("--split", "train", "-n", "9")
    assert code == 0
    lengths = {
        title: int(line.split("total ")[1].split(" of 120")[0].replace(",", ""))
        for title, line in zip(
            titles(out), [x for x in out.splitlines() if "total " in x], strict=True
        )
    }
    long = {title: length for title, length in lengths.items() if length > 120}
    assert 0 < len(long) <= len(lengths) == 3
    assert f"{len(long)} exceed max_tokens = 120 and would be dropped" in out
    for title, length in long.items():
        assert f"  {title}: {length}" in out
    assert out.count("too long, dropped") == len(long)
    assert ("[sft] max_dropped" in out) == (len(long) > 1)
    assert "not trained on" in preview(more="")[1]


def test_dropped_rows_are_shown_with_the_reason(preview):
    rows = [*ROWS, {**ROWS[0], "instance_id": "demo__bad-1", "base_commit": ""}]
    code, out = preview(rows=rows)
    assert code == 0
    assert "6 instances, 3 with an answer" in out
    (line,) = (line for line in out.splitlines() if "demo__bad-1" in line)
    assert "run" in line and "base_commit" in line and " 1 " in line
    code, out = preview("--instance", "demo__bad-1", rows=rows)
    assert code == 2 and "demo__bad-1: dropped: " in out
    code, out = preview("--instance", "none-1")
    assert code == 2 and "none-1: no such instance" in out


def test_an_empty_preview_names_the_command_that_keeps_the_reasons(preview):
    code, out = preview(
        "--set", "prompt.answer=search-replace", more="[grade]\n[evaluate]"
    )
    assert code == 1
    assert (
        "The files of 6 instances are unavailable. 6 x " in out
        and "--until prepare" in out
    )
    assert tempfile.gettempdir() not in out


def test_hints_do_not_name_temporary_files(preview):
    code, out = preview(
        "--set", "data.leakage=refuse", "--set", "data.holdout.by=instance"
    )
    assert code == 1 and 'set [data] leakage = "drop"' in out
    assert "stages/prepare/leakage.jsonl" in out and "--until prepare" in out
    assert tempfile.gettempdir() not in out
    code, out = preview(rows=ROWS[:1])
    assert code == 1 and "Use more data, or split by instance" in out
    assert "--until prepare" not in out


def test_answers_that_the_tokenizer_changes_are_counted(preview):
    decomposed = PATCH.replace("+y", "+e\u0301")
    rows = [{**row, "patch": decomposed} for row in ROWS]
    code, out = preview(rows=rows)
    assert code == 0
    assert "3 answers contain characters that the tokenizer changes" in out


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        (
            'use = "replay"\npath = "rows.jsonl"',
            2,
            "'replay' cannot show its tokens",
        ),
        ('name = "./none"', 2, "./none does not exist"),
        ('name = "empty"\nquantization = "none"', 2, "has no tokenizer"),
    ],
)
def test_a_missing_tokenizer_is_an_error_with_a_next_step(
    preview, tmp_path, model, code, message
):
    (tmp_path / "empty").mkdir()
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    (tmp_path / "empty" / "config.json").write_text(json.dumps(config))
    found, out = preview(model=f"[model]\n{model}", more="")
    assert message in out and found == code


def test_a_recipe_without_a_model_is_an_error_with_a_next_step(preview):
    code, out = preview(model="", more="")
    assert code == 2 and "--set model.name=" in out
