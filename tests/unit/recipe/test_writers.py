"""`[generate] model`: one writer, or a list of them."""

import json

import pytest

from swebench_trainer import builtin
from swebench_trainer.errors import RecipeError
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.load import read_draft, validate
from swebench_trainer.recipe.models import semantic_settings

HEAD = """\
schema_version = 1
name = "writers"
[data]
use = "rows"
path = "rows.jsonl"
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        for name in ("rows.jsonl", "a.jsonl", "b.jsonl"):
            (tmp_path / name).write_text(json.dumps({"file": name}))
        path = tmp_path / "recipe.toml"
        path.write_text(HEAD + text)
        draft = read_draft(path)
        return validate(draft, Plugins({"builtin": builtin}).tables(draft.uses()))

    return load


def test_a_list_of_tables_in_either_form(load, tmp_path):
    inline = load(
        "[generate]\nmodel = [{ use = 'replay', path = 'a.jsonl' }, "
        "{ use = 'replay', path = 'b.jsonl' }]\n"
    )
    tables = load(
        "[[generate.model]]\nuse = 'replay'\npath = 'a.jsonl'\n"
        "[[generate.model]]\nuse = 'replay'\npath = 'b.jsonl'\n"
    )
    assert inline.generate == tables.generate
    paths = [writer.path for writer in tables.generate.writers]
    assert paths == [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert load(
        "[generate]\nmodel = { use = 'replay', path = 'a.jsonl' }\n"
    ).generate.writers


def test_each_of_them_decides_the_result(load, tmp_path):
    text = "[[generate.model]]\nuse = 'replay'\npath = 'a.jsonl'\n[[generate.model]]\nuse = 'replay'\npath = 'b.jsonl'\n"
    before = semantic_settings(load(text).generate)
    one = semantic_settings(
        load(
            text.partition("[[generate.model]]\nuse = 'replay'\npath = 'b")[0]
        ).generate
    )
    assert before["model"][0] == one["model"][0] and before != one


def test_a_wrong_key_is_shown_in_its_own_table(load, tmp_path):
    with pytest.raises(RecipeError) as caught:
        load(
            "[[generate.model]]\nuse = 'replay'\npaht = 'a.jsonl'\n"
            "[[generate.model]]\nuse = 'replay'\npath = 'b.jsonl'\n"
        )
    text = str(caught.value)
    assert "recipe.toml:8:1: [generate.model.1] has no key 'paht'" in text
    assert "did you mean 'path'?" in text


@pytest.mark.parametrize("value", ["[]", "3", "['replay']"])
def test_what_is_no_list_of_tables(load, value):
    with pytest.raises(RecipeError, match="or a list of them"):
        load(f"[generate]\nmodel = {value}\n")
