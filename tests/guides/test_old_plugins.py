"""Plugins that the previous version's `new-plugin` wrote still pass their own tests."""

import shutil
from pathlib import Path

import pytest

OLD = Path(__file__).parents[1] / "fixtures/format_1/plugins"


@pytest.mark.parametrize(
    "distribution", sorted(path.name for path in OLD.iterdir() if path.is_dir())
)
def test_an_old_plugin_passes_its_tests(distribution, elsewhere):
    folder = shutil.copytree(OLD / distribution, elsewhere.folder / distribution)
    elsewhere.install(folder)
    elsewhere.passes(folder)
    name = distribution.removeprefix("swebench-trainer-")
    listed = elsewhere.python("-m", "swebench_trainer", "plugins")
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
