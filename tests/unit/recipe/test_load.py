"""Recipes: merging, and errors that say where, what, and what was meant."""

import pytest

from swebench_trainer import builtin, hookimpl
from swebench_trainer.errors import PluginError, RecipeError
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.load import read_draft, validate
from swebench_trainer.recipe.models import (
    PairsTable,
    resolved_settings,
    semantic_settings,
)

MINIMAL = """\
schema_version = 1
name = "small"

[data]
use = "rows"
path = "rows.jsonl"
"""


@pytest.fixture
def plugins():
    return Plugins({"builtin": builtin})


@pytest.fixture
def load(tmp_path, plugins):
    def load(text, *overrides):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        draft = read_draft(path, overrides)
        return validate(draft, plugins.tables(draft.uses()))

    return load


def test_a_minimal_recipe_takes_the_defaults(load, tmp_path):
    recipe = load(MINIMAL)
    assert recipe.seed == 0
    assert recipe.sft is None
    assert recipe.prompt.answer == "search-replace"
    assert recipe.data.path == str(tmp_path / "rows.jsonl")


def test_an_empty_table_takes_its_defaults(load):
    recipe = load(MINIMAL + '[model]\nname = "m"\n[sft]\n')
    assert recipe.sft.learning_rate == 2e-4
    assert recipe.model.lora.rank == 32


def test_every_error_is_shown_at_once_with_its_place(load, tmp_path):
    text = """\
schema_version = 1
name = "bad/name"
colour = "red"

[data]
use = "rowz"

[model]
name = "m"

[sft]
learning_rat = 1e-4
epochs = "three"
lora = false
beta = 0.1
"""
    with pytest.raises(RecipeError) as caught:
        load(text)
    message = str(caught.value)
    file = tmp_path / "recipe.toml"
    assert f"{file}:2:1: name: " in message
    assert f"{file}:3:1: a recipe has no table or key 'colour'" in message
    assert f"{file}:6:1: [data] use: no plugin called 'rowz' is installed" in message
    assert "did you mean 'rows'?" in message
    assert f"{file}:12:1: [sft] has no key 'learning_rat'" in message
    assert "did you mean 'learning_rate'?" in message
    assert f"{file}:13:1: sft.epochs: " in message
    assert "'lora' belongs to [model]" in message
    assert "'beta' belongs to [dpo]" in message
    assert "  12 | learning_rat = 1e-4\n     | ^^^^^^^^^^^^\n" in message


def test_a_wrong_key_in_an_inline_table_is_underlined(load):
    with pytest.raises(RecipeError) as caught:
        load(
            MINIMAL.replace("use =", "holdout = { by = 'repo', fractoin = 0.1 }\nuse =")
        )
    message = str(caught.value)
    assert ":5:26: [data.holdout] has no key 'fractoin'" in message
    assert "did you mean 'fraction'?" in message


def test_of_a_list_or_a_table_the_one_that_was_meant_says_what_is_wrong(load):
    with pytest.raises(RecipeError) as caught:
        load(MINIMAL.replace("use =", "include = { repo = ['a/b'] }\nuse ="))
    message = str(caught.value)
    assert ":5:13: [data.include] has no key 'repo'" in message
    assert "did you mean 'repos'?" in message
    assert "must be a list" not in message


def test_syntax_errors_have_a_place(load, tmp_path):
    with pytest.raises(RecipeError, match=r"recipe\.toml:2:10: not valid TOML"):
        load('schema_version = 1\nname = "x\n')


def test_a_missing_file_names_the_way_to_a_recipe(tmp_path):
    with pytest.raises(RecipeError, match="swebench-train new"):
        read_draft(tmp_path / "none.toml")


def test_a_missing_base_names_the_recipe_that_extends_it(load, tmp_path):
    with pytest.raises(RecipeError) as caught:
        load('extends = "none.toml"\n')
    assert "none.toml" in str(caught.value)
    assert "recipe.toml" in caught.value.hint


def test_a_table_that_stands_alone_is_an_error(load):
    with pytest.raises(RecipeError) as caught:
        load(MINIMAL + "[dpo]\n[evaluate]\n")
    message = str(caught.value)
    assert ":7:2: [dpo] needs [model] in the same recipe" in message
    assert "[dpo] needs [pairs] in the same recipe" in message
    assert ":8:2: [evaluate] needs [grade] in the same recipe" in message


def test_extends_and_set_are_laid_over(load, tmp_path):
    (tmp_path / "base.toml").write_text(
        MINIMAL + '[model]\nname = "m"\n[sft]\nepochs = 5\nlearning_rate = 1e-3\n'
    )
    recipe = load(
        'extends = "base.toml"\n[sft]\nepochs = 7\n', "sft.learning_rate=1e-5"
    )
    assert (recipe.sft.epochs, recipe.sft.learning_rate) == (7, 1e-5)


def test_extends_in_a_circle_is_an_error(load):
    with pytest.raises(RecipeError, match="extends itself"):
        load('extends = "recipe.toml"\n' + MINIMAL)


def test_an_error_in_an_override_names_the_option(load):
    with pytest.raises(RecipeError, match=r"--set seed=x: seed: "):
        load(MINIMAL, "seed=x")
    with pytest.raises(RecipeError, match=r"expected table\.key=value"):
        load(MINIMAL, "seed")


def test_the_writer_of_candidates_is_validated_like_a_model(load):
    extra = '[grade]\n[generate]\nmodel = { use = "replay", paht = "p.jsonl" }\n'
    with pytest.raises(RecipeError) as caught:
        load(MINIMAL + extra)
    assert "[generate.model] has no key 'paht'" in str(caught.value)
    with pytest.raises(RecipeError, match=r"\[generate\] needs \[model\]"):
        load(MINIMAL + "[grade]\n[generate]\n")


def test_worker_counts_and_paths_are_not_semantic(load):
    one = load(MINIMAL + '[model]\nname = "m"\n[evaluate]\n[grade]\nworkers = 1\n')
    two = load(MINIMAL + '[model]\nname = "m"\n[evaluate]\n[grade]\nworkers = 7\n')
    assert semantic_settings(one.grade) == semantic_settings(two.grade)
    assert "path" not in semantic_settings(one.data)
    assert resolved_settings(one)["grade"]["workers"] == 1
    assert resolved_settings(one)["model"]["name"] == "m"


def test_a_broken_plugin_that_the_recipe_names_is_fatal(plugins):
    from swebench_trainer.plugins.manager import BrokenPlugin

    plugins.load_installed()
    plugins.broken.append(
        BrokenPlugin("rocket", "swebench-trainer-rocket 1", ImportError("no fuel"))
    )
    with pytest.raises(PluginError, match="no fuel"):
        plugins.tables([("grade", "rocket")])


def test_use_that_is_no_name_is_an_error(load):
    with pytest.raises(RecipeError, match=r"\[data\] needs use, the name of a plugin"):
        load(MINIMAL.replace('use = "rows"', 'use = ["rows"]'))


def test_a_choice_of_forms_gives_one_error_about_the_form_that_was_meant(load):
    with pytest.raises(RecipeError) as caught:
        load(MINIMAL + '[model]\nname = "m"\nlora = { alfa = 3 }\n')
    message = str(caught.value)
    assert "[model.lora] has no key 'alfa'" in message
    assert "did you mean 'alpha'?" in message
    assert "literal" not in message


def test_impossible_numbers_are_found_by_check(load):
    text = MINIMAL + '[model]\nname = "m"\n[sft]\n'
    with pytest.raises(RecipeError, match="micro_batch = 3 does not divide"):
        load(text + "micro_batch = 3\n")
    with pytest.raises(RecipeError, match=r"sft\.learning_rate"):
        load(text + "learning_rate = inf\n")
    with pytest.raises(RecipeError, match=r"evaluate\.splits"):
        load(text + "[grade]\n[evaluate]\nsplits = []\n")


def test_paths_start_at_the_file_that_writes_them(load, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "b.toml").write_text(MINIMAL)
    recipe = load('extends = "base/b.toml"\nseed = 1\n')
    assert recipe.data.path == str(base / "rows.jsonl")
    recipe = load('extends = "base/b.toml"\n[data]\npath = "mine.jsonl"\n')
    assert recipe.data.path == str(tmp_path / "mine.jsonl")


def test_a_file_keeps_its_name_behind_a_link(load, tmp_path):
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "rows.jsonl").symlink_to("blob")
    assert load(MINIMAL).data.path == str(tmp_path / "rows.jsonl")


def test_the_schema_accepts_what_the_loader_accepts(plugins):
    from swebench_trainer.commands.recipes import json_schema

    schema = json_schema(plugins.tables())
    writers = schema["properties"]["generate"]["anyOf"][0]["properties"]["model"]
    names = [w["properties"]["use"]["const"] for w in writers["anyOf"][:-1]]
    assert names == ["hf", "replay"]
    assert {"required": ["extends"]} in schema["anyOf"]
    assert "required" not in schema


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('learning_rate = "4e-3"', "sft.learning_rate"),
        ("epochs = true", "sft.epochs"),
        ("epochs = 1.5", "sft.epochs"),
    ],
)
def test_a_text_is_no_number(load, line, says):
    with pytest.raises(RecipeError, match=says):
        load(MINIMAL + f'[model]\nname = "m"\n[sft]\n{line}\n')


def test_a_whole_number_may_stand_for_a_rate(load):
    assert load(MINIMAL + "[model]\nname = 'm'\n[sft]\nlearning_rate = 1\n").sft


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_seeds_are_those_that_every_library_takes(load, seed):
    with pytest.raises(RecipeError, match="seed: "):
        load(MINIMAL, f"seed={seed}")


def test_errors_come_in_the_order_of_the_lines_whatever_their_kind(load):
    text = MINIMAL + '[model]\nname = "m"\n[sft]\nepoch = 1\n[dpo]\nbata = 1\n'
    with pytest.raises(RecipeError) as caught:
        load(text)
    lines = [
        int(line.split(":")[1])
        for line in str(caught.value).splitlines()
        if "recipe.toml:" in line
    ]
    assert lines == [10, 11, 12]


def test_a_byte_order_mark_is_no_error(load):
    assert load("\ufeff" + MINIMAL).name == "small"


LOOP = (
    MINIMAL
    + """
[model]
name = "m"
[generate]
[grade]
use = "namespace"
[pairs]
use = "unpaired"
"""
)


def test_answers_that_stand_alone_need_a_loss_for_them(load):
    with pytest.raises(RecipeError, match=r'loss = "sigmoid" compares two'):
        load(LOOP + "[dpo]\n")
    recipe = load(LOOP + '[dpo]\nloss = "kto"\nmicro_batch = 2\n')
    assert recipe.pairs.max_per_instance == 16
    load(LOOP + '[dpo]\nloss = "kto"\nmicro_batch = 2\n', "pairs.use=api-rejects")


def test_a_plugins_strategy_may_do_without_grades(load, plugins):
    class Guesses(PairsTable):
        graded: bool = True

        @property
        def needs_grades(self):
            return self.graded

    class OffersGuesses:
        @hookimpl
        def register_pair_strategies(self, register):
            register("guesses", object, config=Guesses)

    plugins.add(OffersGuesses(), "guesses", "guesses 1")
    text = LOOP.replace('[grade]\nuse = "namespace"\n', "")
    assert not load(text, "pairs.use=guesses", "pairs.graded=false").pairs.needs_grades
    for use in ("guesses", "self-generated"):
        with pytest.raises(RecipeError, match=r"\[pairs\] needs \[grade\]"):
            load(text, f"pairs.use={use}")


def test_trust_needs_counter_runs(load):
    off = LOOP.replace(
        'use = "namespace"\n', 'use = "namespace"\ncounter_runs = false\n'
    )
    assert load(off).pairs.trust == "sabotage"  # the default, which then has no effect
    strict = off.replace("[pairs]\n", '[pairs]\ntrust = "canary"\n')
    assert strict != off
    with pytest.raises(RecipeError, match="counter_runs is false"):
        load(strict)
    assert load(strict.replace('"canary"', '"any"')).pairs.trust == "any"


def test_counter_runs_do_not_affect_admission(load):
    on, off = (
        load(LOOP).grade,
        load(LOOP).grade.model_copy(update={"counter_runs": False}),
    )
    assert semantic_settings(on, "admit") == semantic_settings(off, "admit")
    for stage in ("grade", "evaluate"):
        assert semantic_settings(on, stage) != semantic_settings(off, stage)
