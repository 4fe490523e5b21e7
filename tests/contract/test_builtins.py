"""Our own plugins, and the example, are held to the contracts that we publish."""

import importlib.util
import json

import pytest

from swebench_trainer import builtin
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.testing import (
    FakeGrader,
    an_instance,
    check_backend,
    check_grader,
    check_pair_strategy,
    check_prompt_style,
    check_publisher,
    check_sampling,
    check_source,
    check_training_resume,
)


@pytest.fixture
def plugins(request):
    path = request.config.rootpath / "tests/example_plugin/swebench_trainer_example.py"
    spec = importlib.util.spec_from_file_location("swebench_trainer_example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    loaded = Plugins({"builtin": builtin})
    loaded.add(example, "example", "swebench-trainer-example 0.3.1")
    return loaded


@pytest.fixture
def make(plugins):
    def make(kind, use, **keys):
        entry = plugins.registry.get(kind, use)
        return entry.factory(entry.config(use=use, **keys))

    return make


@pytest.fixture
def rows_file(tmp_path):
    instance = an_instance()
    row = {
        name: getattr(instance, name)
        for name in ("instance_id", "repo", "base_commit", "problem_statement", "patch")
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n{}\n")
    return path


def test_sources(make, rows_file, pytestconfig):
    check_source(lambda: make("source", "rows", path=str(rows_file)))
    folder = pytestconfig.rootpath / "recipes/quickstart"
    check_source(lambda: make("source", "task-repo", path=folder))
    check_source(lambda: make("source", "generated", heldout=2, graded=1, count=2))


@pytest.mark.parametrize("use", ["issue", "oracle", "bm25", "files"])
def test_prompt_styles(make, use, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "greet.py").write_text('def greet(name):\n    return "Hello " + name\n')
    instance = an_instance(snapshot=str(tmp_path))
    keys = {}
    if use == "files":
        keys = {"list": str(tmp_path / "list.json")}
        listed = {instance.instance_id: ["greet.py"]}
        (tmp_path / "list.json").write_text(json.dumps(listed))
    check_prompt_style(make("prompt style", use, **keys), instance)


@pytest.mark.parametrize(
    "use", ["self-generated", "api-rejects", "tiered", "first-pass"]
)
def test_pair_strategies(make, use):
    check_pair_strategy(make("pair strategy", use))


def test_a_strategy_for_answers_that_stand_alone(make):
    check_pair_strategy(make("pair strategy", "unpaired"), one_sided=True)
    with pytest.raises(AssertionError, match="only one answer"):
        check_pair_strategy(make("pair strategy", "unpaired"))


def test_a_strategy_that_does_without_grades(make):
    check_pair_strategy(
        make("pair strategy", "api-rejects", graded=False), graded=False
    )


def test_the_example_backend(make, tmp_path):
    check_backend(make("backend", "parrot"), tmp_path)


def test_the_hf_backend(make, tmp_path):
    backend = make(
        "backend",
        "hf",
        name="builtin:tiny",
        quantization="none",
        lora=False,
        checkpointing="none",
    )
    check_backend(backend, tmp_path)


def test_a_training_of_the_hf_backend_that_is_stopped(make, tmp_path):
    keys = {"quantization": "none", "lora": False, "checkpointing": "none"}
    check_training_resume(
        lambda: make("backend", "hf", name="builtin:tiny", **keys), tmp_path, steps=3
    )


def test_the_replay_backend(make, tmp_path):
    path = tmp_path / "preds.jsonl"
    row = {"instance_id": "i-0", "model_name_or_path": "m", "model_patch": "diff"}
    path.write_text(json.dumps(row) + "\n")
    backend = make("backend", "replay", path=str(path))
    check_backend(backend, tmp_path, trains=False)
    check_sampling(backend, None)


def test_the_fake_grader(tmp_path):
    check_grader(FakeGrader(), an_instance(), tmp_path)


def test_the_directory_publisher(make, tmp_path):
    check_publisher(
        make("publisher", "directory", path=tmp_path / "out"), tmp_path / "in"
    )
    assert (tmp_path / "out" / "README.md").exists()
