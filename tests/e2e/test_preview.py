"""`swebench-train preview`: prompts and answers as the model will see them."""

import json

import pytest

MODEL = '[model]\nname = "builtin:tiny"\nquantization = "none"\nlora = false\n'
PARROT = '[model]\nuse = "parrot"\n'
ESCAPES = "\x1b]0;owned\x07 \x1b[31mred\x1b[0m \u202e reversed \x9b2J"
MARKUP = "[bold red]x[/] [link=http://e.vil]y[/link] :bomb: <|im_end|>"


@pytest.fixture
def tiny(recipe):
    assert PARROT in recipe
    return recipe.replace(PARROT, MODEL)


def learned(out):
    """The lines marked with a bar, as one text."""
    return "".join(line[2:] + "\n" for line in out.splitlines() if line[:1] == "▌")


def files(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_quickstart_is_shown_as_a_run_trains_it(shell, tiny):
    """An existing run is not touched, and no files are left behind."""
    shell.run(shell.write(tiny), "--until", "prepare")
    rows = {r["instance_id"]: r for r in shell.rows("prepare", "sft.jsonl")}
    name = "quickstart__daytally-1"
    scratch = shell.folder / "tmp"
    scratch.mkdir()
    shell.env["TMPDIR"] = str(scratch)
    before = files(shell.folder / "runs")
    out = shell.run("preview", "recipe.toml", "--instance", name, "--lines", "0")
    assert files(shell.folder / "runs") == before
    assert not list(scratch.glob("swebench-train-*"))

    assert learned(out) == rows[name]["completion"] + "<|im_end|>\n"
    read = [line[2:] for line in out.splitlines() if line.startswith("  ")]
    asked = f"<|im_start|>user\n{rows[name]['prompt']}<|im_end|>\n<|im_start|>assistant"
    assert asked in "\n".join(read)
    assert "5 instances, " in out and "; 0 exceed max_tokens" in out


def test_a_hostile_issue_is_shown_harmlessly(shell, tiny):
    row = {
        "instance_id": "demo__demo-1",
        "repo": "demo/demo",
        "base_commit": "0" * 40,
        "problem_statement": f"{ESCAPES}\n{MARKUP}",
        "patch": "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n",
    }
    (shell.folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    data = '[data]\nuse = "rows"\npath = "rows.jsonl"\nholdout = { fraction = 0.0 }\n'
    text = 'schema_version = 1\nname = "small"\n' + data
    recipe = shell.write(text + '[prompt]\nanswer = "diff"\n' + MODEL + "[sft]\n")
    shell.env["FORCE_COLOR"] = "1"
    out = shell.run("preview", recipe)
    assert "<U+001B>]0;owned<U+0007>" in out and "<U+202E> reversed" in out
    assert MARKUP in out
    assert "\x1b[32m" in out  # from our own styling
    for hostile in ("\x1b]0", "\x1b[31mred", "\x9b", "\x07", "\u202e"):
        assert hostile not in out


def test_a_missing_tokenizer_names_the_next_step(shell, tiny):
    """Without the model, and after an interrupted download."""
    recipe = shell.write(tiny)
    out = shell.run("preview", recipe, "--set", "model.name=org/none", code=3)
    assert "org/none is not in the local cache" in out
    assert "`hf download org/none`" in out

    commit = "0" * 40
    model = shell.hub / "models--org--half"
    (model / "snapshots" / commit).mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    (model / "snapshots" / commit / "config.json").write_text(json.dumps(config))
    out = shell.run("preview", recipe, "--set", "model.name=org/half", code=3)
    assert "The tokenizer of org/half is not in the local cache." in out
    assert "`hf download org/half`" in out
