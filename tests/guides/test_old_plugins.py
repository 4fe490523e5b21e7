"""Plugins that the previous version's `new-plugin` wrote still pass their own tests."""

import shutil
from pathlib import Path

import pytest

OLD = Path(__file__).parents[1] / "fixtures/format_1/plugins"


NAMES = sorted(path.name for path in OLD.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def installed(elsewhere):
    copies = [shutil.copytree(OLD / name, elsewhere.folder / name) for name in NAMES]
    elsewhere.install(*copies)
    return elsewhere.folder


@pytest.mark.parametrize("distribution", NAMES)
def test_an_old_plugin_passes_its_tests(distribution, installed, elsewhere):
    elsewhere.passes(installed / distribution)


def test_old_plugins_are_listed(installed, elsewhere):
    listed = elsewhere.python("swebench_trainer", "plugins")
    for distribution in NAMES:
        name = distribution.removeprefix("swebench-trainer-")
        assert f" {name} " in listed and f"{distribution} 0.1.0" in listed


def test_the_fixture_has_a_plugin_of_each_kind():
    kinds = {
        "backend",
        "grader",
        "pair-strategy",
        "prompt-style",
        "publisher",
        "source",
    }
    assert {path.name for path in OLD.iterdir()} == {
        f"swebench-trainer-my-{kind}" for kind in kinds
    }
