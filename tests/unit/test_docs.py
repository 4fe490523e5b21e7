"""What is written about the project is true of it."""

import inspect
import re
import runpy
import tomllib
from typing import get_args

import pytest

from swebench_trainer import (
    builtin,
    contracts,
    errors,
    events,
    hookspecs,
    testing,
    types,
)
from swebench_trainer.cli import app
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.load import read_draft, validate
from swebench_trainer.recipe.models import Repair, Table


@pytest.fixture(scope="session")
def root(pytestconfig):
    return pytestconfig.rootpath


@pytest.mark.parametrize("page", ["hooks", "contracts", "recipe", "cli"])
def test_the_reference_is_generated_from_the_source(root, page):
    pages = runpy.run_path(str(root / "docs/generate.py"))["pages"]()
    written = (root / f"docs/reference/{page}.md").read_text()
    assert written == pages[page], "run: python docs/generate.py"


def test_every_hook_is_in_the_reference_with_its_arguments(root):
    text = (root / "docs/reference/hooks.md").read_text()
    documented = dict(re.findall(r"^### `(\w+)\((.*)\)`$", text, re.MULTILINE))
    expected = {
        name: ", ".join(inspect.signature(function).parameters)
        for name, function in vars(hookspecs).items()
        if hasattr(function, "swebench_trainer_spec")
    }
    assert documented == expected


def test_every_type_that_plugins_see_is_in_the_reference(root):
    text = (root / "docs/reference/contracts.md").read_text()
    documented = set(re.findall(r"^### `(\w+)`$", text, re.MULTILINE))
    expected = {
        name
        for module in (contracts, errors, events, types)
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    }
    assert expected <= documented
    kit = {n for n, value in vars(testing).items() if callable(value) and n[0] != "_"}
    assert kit <= documented


def test_links_between_documents_lead_somewhere(root):
    for path in (root / "README.md", *(root / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_every_flag_is_explained(root):
    from swebench_trainer.grading.retest import PASSES_ANYTHING, UNCONFIRMED
    from swebench_trainer.grading.trust.flags import MEANINGS
    from swebench_trainer.types import FLAKY

    table = (root / "docs/grading.md").read_text().split("## Flags")[1]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    assert rows.keys() == {*MEANINGS, PASSES_ANYTHING, UNCONFIRMED, FLAKY}
    assert MEANINGS.items() <= rows.items()


def test_every_repair_is_explained(root):
    table = (root / "docs/answers.md").read_text().split("## Repairs")[1]
    names = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    assert tuple(names) == get_args(Repair)


def test_every_key_explains_itself():
    for tables in Plugins({"builtin": builtin}).tables().values():
        for model in tables.values():
            assert issubclass(model, Table)
            for name, spec in model.model_fields.items():
                assert spec.description, f"{model.__name__}.{name} has no docstring"


def recipes(root):
    return [
        path
        for folder in ("recipes", "docs", "plugins", "tests")
        for path in sorted((root / folder).rglob("*.toml"))
        if path.name != "pyproject.toml" and "schema_version" in path.read_text()
        if "fixtures" not in path.parts  # written by another version
    ]


def test_every_recipe_is_valid_and_opens_with_its_command(root):
    plugins = Plugins({"builtin": builtin})
    found = recipes(root)
    assert root / "recipes/quickstart.toml" in found
    for path in found:
        draft = read_draft(path)
        validate(draft, plugins.tables(draft.uses()))
        first = path.read_text().split("\n")[0]
        assert first.startswith(f"# swebench-train recipes/{path.name} "), path


def test_recipes_in_the_documents_are_valid(root, tmp_path):
    plugins = Plugins({"builtin": builtin})
    blocks = [
        block
        for path in (root / "README.md", *(root / "docs").rglob("*.md"))
        for block in re.findall(r"^```toml\n(.*?)^```", path.read_text(), re.M | re.S)
        if "schema_version" in block
    ]
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        draft = read_draft(path)
        validate(draft, plugins.tables(draft.uses()))


def test_the_readme_names_every_command(root):
    text = (root / "README.md").read_text()
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"swebench-train {name}" in text or name == "run", name


def test_versions_agree(root):
    from swebench_trainer import __version__

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    pinned = dict(
        line.split("==")
        for line in (root / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(name for extra in extras for name in extra)]
    missing = {re.split("[<>=[]", w)[0] for w in wanted} - {*pinned, project["name"]}
    assert not missing, f"not in constraints.txt: {missing}"


def test_every_threat_names_an_existing_test(root):
    page = (root / "docs/threats-and-faults.md").read_text()
    tests = "".join(path.read_text() for path in root.glob("tests/**/*.py"))
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [row.split(" | ")[-1] for row in rows if "`" in row]
    names = {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)}
    exploits = {f'"{name}"' for name in names if not name.startswith("test_")}
    functions = {f"def {name}(" for name in names if name.startswith("test_")}
    assert len(exploits) > 20 and len(functions) > 20
    assert [text for text in exploits | functions if text not in tests] == []
