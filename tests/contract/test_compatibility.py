"""What plugins rely on stays: the released surface, and plugins that know less of it."""

import ast
import dataclasses
import inspect
import json
import types as python_types
from pathlib import Path

import pluggy
import pytest

import swebench_trainer
from swebench_trainer import (
    contracts,
    errors,
    events,
    hf,
    hookimpl,
    hookspecs,
    testing,
    types,
)
from swebench_trainer.contracts import Sample
from swebench_trainer.events import ItemDone
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe import models
from swebench_trainer.testing import FakeBackend, an_instance

pytest_plugins = ["swebench_trainer.testing.fixtures"]

MADE = (
    "Sample",
    "Outcome",
    "Pair",
    "Loaded",
    "Prompt",
    "Instance",
    "TokenView",
    "TokenPart",
)
"""What plugins make: these may ask for nothing new."""


def surface():
    """What the documents say that plugins may rely on."""
    dataclasses_of = {
        name: value
        for module in (contracts, types, events)
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and dataclasses.is_dataclass(value)
        and value.__module__ == module.__name__
    }
    protocols = {
        name: value
        for name, value in vars(contracts).items()
        if getattr(value, "_is_protocol", False)
        and value.__module__ == contracts.__name__
    }
    return {
        "hooks": {
            name: list(inspect.signature(value).parameters)
            for name, value in vars(hookspecs).items()
            if hasattr(value, "swebench_trainer_spec")
        },
        "register": arguments(hookspecs.Register.__call__),
        "fields": {
            name: [field.name for field in dataclasses.fields(value)]
            for name, value in dataclasses_of.items()
        },
        "needed to make": {
            name: [
                field.name
                for field in dataclasses.fields(dataclasses_of[name])
                if field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            ]
            for name in MADE
        },
        "methods": {
            name: {
                method: arguments(function)
                for method, function in vars(value).items()
                if inspect.isfunction(function) and not method.startswith("_")
            }
            for name, value in protocols.items()
        },
        "keys of base tables": {
            name: list(table.model_fields) for name, table in models.TABLES.items()
        },
        "statuses": [status.value for status in types.Status],
        "errors": [
            name
            for name, value in vars(errors).items()
            if inspect.isclass(value) and value.__module__ == errors.__name__
        ],
        "testing": sorted(
            name
            for name, value in vars(testing).items()
            if not name.startswith("_") and not inspect.ismodule(value)
        ),
        "hf": {
            "names": list(hf.__all__),
            "methods": [name for name in vars(hf.HfBackend) if name[0] != "_"],
            "codec": [field.name for field in dataclasses.fields(hf.Codec)],
            "location": [field.name for field in dataclasses.fields(hf.Location)],
        },
        "names of the package": list(swebench_trainer.__all__),
    }


PUBLIC = (
    "swebench_trainer",
    "swebench_trainer.contracts",
    "swebench_trainer.errors",
    "swebench_trainer.events",
    "swebench_trainer.hf",
    "swebench_trainer.hookspecs",
    "swebench_trainer.recipe.models",
    "swebench_trainer.remote",
    "swebench_trainer.testing",
    "swebench_trainer.types",
)
"""The modules that docs/plugins.md promises to keep."""


def is_public(module):
    return module in PUBLIC or module.startswith(
        ("swebench_trainer.remote.", "swebench_trainer.testing.")
    )


def imported_modules(source):
    """Modules of ours that some Python source imports from."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from swebench_trainer import errors` imports a module, too.
            found = [n for n in names if is_module(n)] or [node.module]
            yield from (
                name for name in found if name.split(".")[0] == "swebench_trainer"
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (
                name for name in names if name.split(".")[0] == "swebench_trainer"
            )


def is_module(name):
    """Whether a dotted name of ours is a module."""
    if not name.startswith("swebench_trainer."):
        return False
    folder = Path(swebench_trainer.__file__).parents[1].joinpath(*name.split("."))
    return folder.with_suffix(".py").is_file() or folder.is_dir()


PLUGIN_SOURCES = sorted(
    path
    for path in Path(__file__).parents[2].glob("plugins/*/swebench_trainer_*/**/*.py")
)


@pytest.mark.parametrize(
    "path", PLUGIN_SOURCES, ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_our_plugin_distributions_import_only_public_modules(path):
    modules = set(imported_modules(path.read_text(encoding="utf-8")))
    assert {name for name in modules if not is_public(name)} == set()


def test_private_modules_are_recognized():
    source = (
        "import swebench_trainer.training.sft\n"
        "from swebench_trainer import TrainerError, training\n"
        "from swebench_trainer.sampling.batch import Batch\n"
        "from swebench_trainer.remote.testing import ApiServer\n"
    )
    private = {name for name in imported_modules(source) if not is_public(name)}
    assert private == {
        "swebench_trainer.training.sft",
        "swebench_trainer.training",
        "swebench_trainer.sampling.batch",
    }


def arguments(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.fixture
def released(pytestconfig):
    path = pytestconfig.rootpath / "tests/contract/surface.json"
    if pytestconfig.getoption("--rewrite-golden"):
        path.write_text(json.dumps(surface(), indent=1) + "\n")
    return json.loads(path.read_text())


def lacking(now, then, at=""):
    """What was released and is no longer there."""
    if isinstance(then, dict):
        for key, value in then.items():
            if key not in now:
                yield f"{at} {key}"
            else:
                yield from lacking(now[key], value, f"{at} {key}")
    else:
        yield from (f"{at} {item}" for item in then if item not in now)


def test_nothing_that_was_released_is_gone(released):
    assert list(lacking(surface(), released)) == []


def test_no_more_is_asked_of_a_plugin_than_was(released):
    now = surface()
    assert now["needed to make"] == released["needed to make"]
    for name, methods in released["methods"].items():
        for method, given in methods.items():
            # What we call it with: one more would break every implementation.
            assert now["methods"][name][method] == given, f"{name}.{method}"


def test_what_is_missing_is_seen():
    then = {"hooks": {"run_started": ["event"]}, "statuses": ["resolved"]}
    now = {"hooks": {"run_started": []}, "statuses": []}
    assert list(lacking(now, then)) == [
        " hooks run_started event",
        " statuses resolved",
    ]


class Old:
    """A plugin of long ago: it knows few arguments, fields and keywords."""

    def __init__(self):
        self.heard = []

    @hookimpl
    def register_backends(self, register):
        register("old", lambda table: OldBackend())

    @hookimpl
    def run_started(self):
        self.heard.append("started")

    @hookimpl
    def item_done(self, event):
        self.heard.append(event.item)

    @hookimpl
    def drop_instances(self, instances):
        return {instances[0].instance_id: "the first"}

    @hookimpl
    def drop_pairs(self):
        return None

    @hookimpl
    def report_rows(self):
        return {"heard": str(len(self.heard))}


class OldBackend:
    """Samples, with the fields that a sample has always had."""

    name = "old"

    def check(self):
        pass

    def open_sampler(self, weights, batch_size):
        return self

    def sample(self, requests):
        return (Sample(r.instance_id, r.sample, r.prompt) for r in requests)

    def close(self):
        pass


def test_a_plugin_that_takes_fewer_arguments_works_in_a_run(trainer):
    old = trainer.add(Old(), "old", "swebench-trainer-old 0.1")
    run = trainer.run(
        generate={"samples": 1, "model": {"use": "old"}},
        **dict.fromkeys(["model", "sft", "pairs", "dpo", "evaluate"]),
    )
    assert len(run.rows("generate", "candidates.jsonl")) == 3
    assert old.heard[0] == "started" and "example__greet-2 #0" in old.heard
    assert f"heard: {len(old.heard)}" in run.output
    (dropped,) = run.rows("prepare", "dropped.jsonl")
    assert dropped["reason"] == "the first"


@pytest.fixture
def later(monkeypatch):
    """The hooks of a later version, which gives more."""
    spec = pluggy.HookspecMarker(hookspecs.PROJECT)
    module = python_types.ModuleType("hookspecs")
    vars(module).update(vars(hookspecs))

    def drop_instances(instances, stage, seed):
        pass

    def after_a_later_stage(event):
        pass

    module.drop_instances = spec(drop_instances)
    module.after_a_later_stage = spec(after_a_later_stage)
    monkeypatch.setattr("swebench_trainer.plugins.manager.hookspecs", module)
    return Plugins({})


def test_hooks_and_events_that_have_grown(later):
    @dataclasses.dataclass(frozen=True)
    class LaterItemDone(ItemDone):
        worker: int = 0

    old = Old()
    later.add(old, "old", "old 0.1")
    instances = [an_instance(1), an_instance(2)]
    given = {"instances": instances, "stage": "x", "seed": 3}
    dropped = later._dropped("drop_instances", lambda: ["example__greet-1"], **given)
    assert dropped == {"example__greet-1": "the first"}
    later.notify(LaterItemDone("grade", "an item", 1, 2, worker=7))
    assert old.heard == ["an item"] and not later.failures


def test_a_plugin_for_a_later_version_is_left_out_and_named(caplog):
    class Later:
        @hookimpl
        def register_backends(self, register):
            register("before", FakeBackend)
            register("later", FakeBackend, colour="red")

    plugins = Plugins({})
    with pytest.raises(TypeError, match="colour"):
        plugins.add(Later(), "later", "swebench-trainer-later 9.0")
    assert plugins.registry.names("backend") == []  # all or nothing
    assert "later" not in plugins.origins


def test_an_installed_plugin_for_another_version_stops_nobody(tmp_path, monkeypatch):
    (tmp_path / "tomorrow.py").write_text(
        "from swebench_trainer import hookimpl\n"
        "@hookimpl\ndef run_started(event, weather):\n    pass\n"
    )
    info = tmp_path / "swebench_trainer_tomorrow-9.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: swebench-trainer-tomorrow\nVersion: 9.0\n"
    )
    (info / "entry_points.txt").write_text("[swebench_trainer]\ntomorrow = tomorrow\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins = Plugins({})
    plugins.load_installed()
    (broken,) = [b for b in plugins.broken if b.name == "tomorrow"]
    assert "does not match the hooks" in str(broken.error)


def test_a_key_of_a_plugin_that_the_base_table_takes_later_stays_its_own():
    class Base(models.ModelTable):
        url: int = 1
        """A key that came later."""

    class Mine(Base):
        url: str = "mine"
        """A key that was there before."""

    assert Mine(use="mine").url == "mine"
