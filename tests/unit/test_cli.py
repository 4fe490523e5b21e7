"""The command line: usage, help, and exit codes."""

import re

import pytest
import typer

from swebench_trainer.__main__ import resume_command, run_command_line
from swebench_trainer.cli import app

COMMANDS = typer.main.get_command(app).commands

BASE_FORMS = {
    "Build",
    "Check",
    "Copy",
    "Create",
    "Grade",
    "List",
    "Merge",
    "Print",
    "Recompute",
    "Run",
    "Show",
    "Validate",
}
"""First words of commands' help: verbs in the imperative."""


@pytest.mark.parametrize(
    ("given", "resumed"),
    [
        (["run", "r.toml"], "swebench-train run r.toml"),
        (
            ["run", "my recipe.toml", "--redo", "sft", "--set", "a.b=1"],
            "swebench-train run 'my recipe.toml' --set a.b=1",
        ),
        (["run", "r.toml", "--redo=sft"], "swebench-train run r.toml"),
    ],
)
def test_resuming_does_not_redo(given, resumed):
    assert resume_command(given) == resumed


@pytest.mark.parametrize(
    "arguments", [["bake"], ["run"], ["run", "r.toml", "--fast"], ["grade"]]
)
def test_wrong_usage_exits_with_two(arguments, capsys):
    assert run_command_line(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    assert run_command_line(["--version"]) == 0
    assert capsys.readouterr().out.startswith("swebench-train 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_a_command_and_every_option(name, capsys):
    command = COMMANDS[name]
    first = command.help.splitlines()[0]
    assert first.split()[0] in BASE_FORMS, "the help of a command is an imperative"
    assert first.endswith(".")
    assert run_command_line([name, "--help"]) == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert first in shown
    for parameter in command.params:
        text = parameter.help
        assert text, f"{name}: {parameter.name} has no help"
        assert text[0].isupper() or parameter.name == "kind", f"{name}: {text}"
        assert text.endswith("."), f"{name}: {text}"
        assert re.sub(r"\s+", " ", text) in shown, f"{name}: {text}"


def test_the_overview_lists_every_command(capsys):
    assert run_command_line(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown, re.MULTILINE), name
    assert not re.search(r"[a-z,]\.\.\.$", shown, re.MULTILINE), (
        "the help of a command does not fit on its line"
    )


def test_the_reference_lists_every_command(request):
    page = request.config.rootpath / "docs/reference/cli.md"
    listed = re.findall(r"^## `swebench-train (.+)`$", page.read_text(), re.MULTILINE)
    assert listed == list(COMMANDS)
