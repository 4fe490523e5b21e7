"""Plugins: origins, clashes, isolation, and how hooks combine."""

import sys
import types

import pytest

from swebench_trainer import builtin, hookimpl
from swebench_trainer.errors import PluginError
from swebench_trainer.events import RecipeLoaded, RunFinished
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import DataTable, GradeTable
from swebench_trainer.testing import an_instance, some_pairs

A, B = an_instance(1), an_instance(2)


@pytest.fixture
def plugins():
    return Plugins({"builtin": builtin})


def plugin(**hooks):
    """A plugin module with the given hooks."""
    module = types.ModuleType("a_plugin")
    vars(module).update({name: hookimpl(f) for name, f in hooks.items()})
    return module


def offers(name, **kwargs):
    return plugin(register_graders=lambda register: register(name, object, **kwargs))


def test_what_is_registered_has_its_origin(plugins):
    plugins.add(offers("moon"), "moon", "swebench-trainer-moon 1.2")
    assert plugins.registry.get("grader", "moon").origin == "swebench-trainer-moon 1.2"
    assert plugins.registry.get("grader", "docker").origin.startswith(
        "swebench-trainer "
    )


def test_two_plugins_with_one_name_are_both_named(plugins):
    plugins.add(offers("moon"), "moon", "swebench-trainer-moon 1.2")
    with pytest.raises(
        PluginError, match=r"swebench-trainer-moon 1\.2 and swebench-trainer-luna 0\.1"
    ):
        plugins.add(offers("moon"), "luna", "swebench-trainer-luna 0.1")


def test_a_builtin_name_cannot_be_taken(plugins):
    with pytest.raises(PluginError, match="grader 'docker'"):
        plugins.add(offers("docker"), "x", "x 1")


def test_an_unknown_name_says_what_there_is(plugins):
    with pytest.raises(PluginError) as caught:
        plugins.registry.get("grader", "doker")
    assert "Did you mean 'docker'?" in caught.value.hint
    assert "swebench-trainer-NAME" in caught.value.hint


def test_a_config_model_of_another_kind_is_refused(plugins):
    with pytest.raises(PluginError, match="does not extend GradeTable"):
        plugins.add(offers("moon", config=DataTable), "moon", "moon 1")


def test_a_hook_with_arguments_that_do_not_exist_is_refused(plugins):
    with pytest.raises(PluginError, match="does not match the hooks"):
        plugins.add(plugin(run_finished=lambda weather: None), "w", "w 1")


def test_a_hook_may_take_fewer_arguments(plugins):
    drops = plugin(drop_instances=lambda instances: {A.instance_id: "all"})
    plugins.add(drops, "p", "p 1")
    assert plugins.dropped_instances([A], "prepare") == {A.instance_id: "all"}


def test_drops_are_united_whatever_the_order(plugins):
    a, b = A.instance_id, B.instance_id
    one = plugin(drop_instances=lambda instances, stage: {a: "old", b: "odd"})
    two = plugin(drop_instances=lambda instances, stage: {a: "big"})
    none = plugin(drop_instances=lambda instances, stage: None)
    other = Plugins({"builtin": builtin})
    for name, p in (("one", one), ("two", two), ("none", none)):
        plugins.add(p, name, name)
    for name, p in (("none", none), ("two", two), ("one", one)):
        other.add(p, name, name)
    expected = {a: "big; old", b: "odd"}
    assert plugins.dropped_instances([A, B], "prepare") == expected
    assert other.dropped_instances([A, B], "prepare") == expected


def test_dropping_what_is_not_there_is_refused_and_named(plugins):
    careful = plugin(drop_instances=lambda instances: {A.instance_id: "old"})
    ids = {A.instance_id: "old", **{f"typo-{n}": "old" for n in range(7)}}
    plugins.add(careful, "careful", "careful 1")
    plugins.add(plugin(drop_instances=lambda instances: ids), "hasty", "hasty 1")
    with pytest.raises(PluginError) as caught:
        plugins.dropped_instances([A, B], "prepare")
    assert "'hasty' (hasty 1) drops unknown keys in drop_instances: 'typo-0', " in (
        caught.value.message
    )
    assert "'typo-4' and 2 more." in caught.value.message
    assert A.instance_id not in caught.value.message


def test_dropping_a_pair_that_is_not_there_names_the_plugin(plugins):
    plugins.add(plugin(drop_pairs=lambda pairs: {0: "x", 4: "y"}), "hasty", "hasty 1")
    with pytest.raises(PluginError, match=r"'hasty' .* drop_pairs: 4\."):
        plugins.dropped_pairs(some_pairs())


def test_a_result_of_the_wrong_type_names_the_plugin(plugins):
    plugins.add(plugin(drop_pairs=lambda pairs: [1]), "sloppy", "sloppy 1")
    with pytest.raises(PluginError, match=r"'sloppy' \(sloppy 1\) returned a list"):
        plugins.dropped_pairs([])


def test_report_rows_with_one_label_name_both(plugins):
    plugins.add(plugin(report_rows=lambda run_dir: {"cost": "1"}), "one", "one")
    plugins.add(plugin(report_rows=lambda run_dir: {"cost": "2"}), "two", "two")
    with pytest.raises(PluginError, match="both report 'cost'"):
        plugins.report_rows("run")


def test_an_observer_that_raises_is_logged_under_its_name_and_no_more(
    plugins, caplog, tmp_path
):
    heard = []
    plugins.add(plugin(run_finished=lambda event: 1 / 0), "clumsy", "clumsy 1")
    plugins.add(
        plugin(run_finished=lambda event: heard.append(event)), "calm", "calm 1"
    )
    event = RunFinished(tmp_path, 1.0)
    plugins.notify(event)
    assert heard == [event]
    assert "plugin 'clumsy' failed in run_finished" in caplog.text


def test_a_plugin_that_comes_late_still_hears_of_the_recipe(plugins, tmp_path):
    heard = []
    event = RecipeLoaded(tmp_path, {})
    plugins.notify(event)
    plugins.add(
        plugin(recipe_loaded=lambda event: heard.append(event)), "late", "late 1"
    )
    assert heard == [event]


@pytest.fixture
def broken_distribution(tmp_path, monkeypatch):
    """An installed distribution whose module raises when imported."""
    (tmp_path / "rocket.py").write_text("raise RuntimeError('no fuel')\n")
    info = tmp_path / "swebench_trainer_rocket-4.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: swebench-trainer-rocket\nVersion: 4.0\n"
    )
    (info / "entry_points.txt").write_text("[swebench_trainer]\nrocket = rocket\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_plugin_that_cannot_be_imported_is_a_warning(
    broken_distribution, plugins, caplog
):
    plugins.load_installed()
    (broken,) = [b for b in plugins.broken if b.name == "rocket"]
    assert broken.origin == "swebench-trainer-rocket 4.0"
    assert "no fuel" in caplog.text


def test_a_plugin_that_cannot_be_imported_is_fatal_if_named(
    broken_distribution, plugins
):
    with pytest.raises(PluginError, match=r"swebench-trainer-rocket 4\.0.*no fuel"):
        plugins.tables([("grade", "rocket")])


def test_strangers_are_not_imported_for_a_recipe_of_builtins(
    broken_distribution, plugins
):
    plugins.tables([("grade", "docker"), ("model", "hf"), ("data", "rows")])
    assert plugins.broken == []
    assert "rocket" not in sys.modules


def test_a_plugins_own_keys_are_validated(plugins):
    class Moon(GradeTable):
        phase: int = 1

    plugins.add(offers("moon", config=Moon), "moon", "moon 1")
    assert plugins.tables([("grade", "moon")])["grade"]["moon"] is Moon


def test_an_observer_of_the_recipe_that_raises_does_not_end_the_run(plugins, tmp_path):
    plugins.add(plugin(recipe_loaded=lambda event: 1 / 0), "clumsy", "clumsy 1")
    plugins.notify(RecipeLoaded(tmp_path, {}))
    assert plugins.failures.total() == 1


def test_two_plugins_of_one_name_are_both_named(plugins):
    plugins.add(plugin(), "twin", "one 1.0")
    with pytest.raises(PluginError, match=r"'twin': one 1\.0 and two 2\.0"):
        plugins.add(plugin(), "twin", "two 2.0")


def test_a_stranger_that_fails_to_register_is_broken_and_no_more(
    tmp_path, monkeypatch, plugins
):
    (tmp_path / "comet.py").write_text(
        "from swebench_trainer import hookimpl\n"
        "@hookimpl\ndef register_graders(register):\n    {}['fuel']\n"
    )
    info = tmp_path / "swebench_trainer_comet-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: swebench-trainer-comet\nVersion: 2.0\n"
    )
    (info / "entry_points.txt").write_text("[swebench_trainer]\ncomet = comet\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load_installed()
    assert [b.name for b in plugins.broken] == ["comet"]
