"""The recipes that are shipped for models: within their windows, by the defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from swebench_trainer import builtin
from swebench_trainer.errors import RecipeError
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.load import read_draft, validate
from swebench_trainer.recipe.shipped import copy_recipe, folder, shipped_recipes

WINDOWS = {
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": 32768,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": 32768,
    "Qwen/Qwen2.5-Coder-7B-Instruct": 32768,
    "Qwen/Qwen2.5-Coder-7B": 32768,
    "deepseek-ai/deepseek-coder-6.7b-instruct": 16384,
    "deepseek-ai/deepseek-coder-6.7b-base": 16384,
    "codellama/CodeLlama-7b-Instruct-hf": 16384,
    "codellama/CodeLlama-7b-hf": 16384,
}
"""`max_position_embeddings` of the models' own `config.json` on the Hub."""

TARGETS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def load(path: Path):
    draft = read_draft(path)
    return validate(draft, Plugins({"builtin": builtin}).tables(draft.uses()))


def models() -> list[str]:
    """The recipes of real models."""
    recipes = {name: load(folder() / f"{name}.toml") for name in shipped_recipes()}
    return [
        name for name, recipe in recipes.items() if "builtin:" not in recipe.model.name
    ]


@pytest.fixture(params=models())
def path(request) -> Path:
    return folder() / f"{request.param}.toml"


def test_every_model_has_a_recipe():
    names = [load(folder() / f"{name}.toml").model.name for name in models()]
    assert sorted(names) == sorted(WINDOWS)


def test_prompt_and_answer_fit_the_models_window(path):
    recipe = load(path)
    prompt = recipe.prompt
    assert prompt.max_tokens <= WINDOWS[recipe.model.name]
    for writing in (recipe.generate, recipe.evaluate):
        assert prompt.context_tokens + writing.max_new_tokens == prompt.max_tokens


def test_training_goes_by_the_defaults(path):
    recipe = load(path)
    model, sft, dpo = recipe.model, recipe.sft, recipe.dpo
    assert set(model.lora.targets) == TARGETS
    assert 16 <= model.lora.rank <= 64
    assert model.lora.alpha == 2 * model.lora.rank
    assert (sft.learning_rate, sft.batch_size, sft.micro_batch) == (2e-4, 4, 1)
    assert 3 <= sft.epochs <= 5
    assert (dpo.beta, dpo.learning_rate) == (0.1, 5e-7)


def test_it_trains_on_pro_and_is_judged_by_repositories_kept_back(path):
    recipe = load(path)
    assert recipe.data.use == "swebench-pro"
    assert recipe.data.holdout.by == "repo"
    assert recipe.grade.timeout == 3600
    assert recipe.name == f"{path.stem}-pro"


def leaves(values: dict, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    found = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        found |= leaves(value, (*above, key)) if inner else {(*above, key): value}
    return found


def test_nothing_is_said_twice(path):
    own = tomllib.loads(path.read_text())
    base = leaves(read_draft(path.parent / own.pop("extends")).values)
    del own["schema_version"]
    for key, value in leaves(own).items():
        assert base.get(key) != value, key


def test_it_says_what_it_is_for_and_that_it_was_not_measured(path):
    head = path.read_text().split("schema_version")[0]
    assert "not measured" in head.split("\n")[0]
    assert all(line.startswith("#") for line in head.strip().split("\n"))


def test_a_copy_brings_what_it_extends(path, tmp_path):
    copy = copy_recipe(path.stem, tmp_path)
    assert load(copy) == load(path)


def test_two_copies_share_what_they_extend(tmp_path):
    copy_recipe("codellama-7b", tmp_path)
    copy_recipe("qwen2.5-coder-7b", tmp_path)
    load(tmp_path / "codellama-7b.toml")
    load(tmp_path / "qwen2.5-coder-7b.toml")


def test_a_base_that_was_changed_is_not_overwritten(tmp_path):
    copy_recipe("codellama-7b", tmp_path)
    (tmp_path / "base" / "pro.toml").write_text("# mine\n")
    with pytest.raises(RecipeError, match="nothing was overwritten"):
        copy_recipe("qwen2.5-coder-7b", tmp_path)
    assert (tmp_path / "base" / "pro.toml").read_text() == "# mine\n"
    assert not (tmp_path / "qwen2.5-coder-7b.toml").exists()


def test_what_others_extend_is_no_recipe_of_its_own():
    assert (folder() / "base" / "pro.toml").is_file()
    assert "pro" not in shipped_recipes()
