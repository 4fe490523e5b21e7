"""The command line around the commands."""

import pytest

from swebench_trainer.cli import _command_again, run_command_line


@pytest.mark.parametrize(
    ("given", "again"),
    [
        (["run", "r.toml"], "swebench-train run r.toml"),
        (
            ["run", "my recipe.toml", "--redo", "sft", "--set", "a.b=1"],
            "swebench-train run 'my recipe.toml' --set a.b=1",
        ),
        (["run", "r.toml", "--redo=sft"], "swebench-train run r.toml"),
    ],
)
def test_going_on_does_not_redo(given, again):
    assert _command_again(given) == again


@pytest.mark.parametrize(
    "arguments", [["bake"], ["run"], ["run", "r.toml", "--fast"], ["grade"]]
)
def test_wrong_usage_is_two(arguments, capsys):
    assert run_command_line(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_the_version(capsys):
    assert run_command_line(["--version"]) == 0
    assert capsys.readouterr().out.startswith("swebench-train 0.")
