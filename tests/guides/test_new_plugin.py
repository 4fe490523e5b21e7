"""A new plugin is installed, passes its tests, and is used, as it was written."""

import pytest

from swebench_trainer.__main__ import run_command_line
from swebench_trainer.scaffold.write import compatible, kinds


@pytest.fixture(scope="module")
def written(elsewhere):
    """A new plugin of each kind, installed."""
    folders = {}
    for kind in kinds():
        options = ["--kind", kind, "--to", str(elsewhere.folder)]
        assert run_command_line(["new-plugin", f"my-{kind}", *options]) == 0
        folders[kind] = elsewhere.folder / f"swebench-trainer-my-{kind}"
    elsewhere.install(*folders.values())
    return folders


@pytest.mark.parametrize("kind", kinds())
def test_a_new_plugin_passes_its_tests(kind, written, elsewhere):
    elsewhere.passes(written[kind])


def test_recipes_can_name_new_plugins(written, elsewhere):
    listed = elsewhere.python("swebench_trainer", "plugins")
    for kind in written:
        assert f" my-{kind} " in listed
        assert f"swebench-trainer-my-{kind} 0.1.0" in listed


def test_the_command_prints_how_to_install_and_test_it(tmp_path, capsys):
    command = ["new-plugin", "my-own", "--kind", "source", "--to", str(tmp_path)]
    assert run_command_line(command) == 0
    folder = tmp_path / "swebench-trainer-my-own"
    install = f"pip install -e {folder} && pytest {folder}"
    assert install in capsys.readouterr().out.splitlines()


def test_the_help_names_every_kind(capsys):
    run_command_line(["new-plugin", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(kind in shown for kind in kinds())


@pytest.mark.parametrize("name", ["My-Model", "a_b", "-a", "a--b", "1a", "../a", ""])
def test_names_that_are_none_are_refused(name, tmp_path, capsys):
    command = ["new-plugin", "--kind", "backend", "--to", str(tmp_path), "--", name]
    assert run_command_line(command) == 2
    assert "is not a valid plugin name" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_kinds_that_there_are_not_and_directories_that_there_are(tmp_path, capsys):
    command = ["new-plugin", "a", "--to", str(tmp_path), "--kind"]
    assert run_command_line([*command, "car"]) == 2
    assert "Kinds: backend, grader, pair-strategy" in capsys.readouterr().err
    assert run_command_line([*command, "backend"]) == 0
    assert run_command_line([*command, "backend"]) == 2
    assert "nothing was overwritten" in capsys.readouterr().err


def test_a_name_that_is_taken_is_refused(tmp_path, capsys):
    command = ["new-plugin", "hf", "--to", str(tmp_path), "--kind"]
    assert run_command_line([*command, "backend"]) == 2
    assert "A backend called 'hf' is already installed" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    assert run_command_line([*command, "grader"]) == 0


def test_a_plugin_is_for_versions_that_promise_to_be_compatible():
    assert compatible("0.1.0") == ">=0.1,<0.2"
    assert compatible("0.12.3") == ">=0.12,<0.13"
    assert compatible("1.4.2") == ">=1.4,<2"
