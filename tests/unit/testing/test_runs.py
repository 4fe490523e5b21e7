"""Whole runs in a test, and what is looked for in them."""

import pytest

from swebench_trainer import hookspecs
from swebench_trainer.errors import PluginFault
from swebench_trainer.testing import (
    DEFAULTS,
    LIFECYCLE,
    FakeBackend,
    HookRecorder,
    assert_light_import,
    assert_no_secrets,
    check_resume,
)
from swebench_trainer.testing.runs import to_toml

pytest_plugins = ["swebench_trainer.testing.fixtures"]

ALL = ["prepare", "admit", "sft", "generate", "grade", "pairs", "dpo", "evaluate"]


def test_a_run_without_a_word_does_every_stage(trainer):
    run = trainer.run()
    assert run.hooks.stages() == ALL
    assert run.rows("pairs", "pairs.jsonl")
    models = run.json("evaluate", "summary.json")["splits"]["train"]["models"]
    assert {name: m["resolved"] for name, m in models.items()} == {
        "base": 0,
        "sft": 4,
        "dpo": 4,
    }
    assert "evaluate" in run.output and (run.dir / "run.json").exists()
    again = trainer.run()
    assert all(event.skipped for event in again.hooks.of("stage_finished"))


def test_tables_replace_and_leave_out(trainer):
    run = trainer.run(
        data={"use": "fake", "count": 2, "holdout": {"fraction": 0}},
        **dict.fromkeys(["sft", "pairs", "dpo", "evaluate"]),
    )
    assert run.hooks.stages() == ["prepare", "admit", "generate", "grade"]
    assert len(run.rows("prepare", "instances.jsonl")) == 2


def test_a_recipe_can_be_given_as_it_is(trainer):
    text = to_toml({"schema_version": 1, "name": "mine", "data": DEFAULTS["data"]})
    run = trainer.run(recipe=text)
    assert run.dir == trainer.folder / "runs/mine"
    assert run.hooks.stages() == ["prepare"]
    again = trainer.run(recipe=text, redo=["prepare"])
    assert (again.dir / "superseded/prepare.1").is_dir()


def test_a_run_goes_on_after_ctrl_c(trainer):
    check_resume(trainer)
    check_resume(trainer, stage="grade")


def test_a_backend_that_forgets_what_it_said_fails_to_resume(trainer):
    class Moody(FakeBackend):
        def open_sampler(self, weights, *, batch_size):
            sampler = super().open_sampler(weights, batch_size=batch_size)
            first = sampler._answer
            said = []

            def answer(request):
                said.append(request)
                return f"{first(request)}\n{len(said)}"

            sampler._answer = answer
            return sampler

    trainer.add(offers_backend(Moody))
    with pytest.raises(AssertionError, match=r"candidates\.jsonl differs"):
        check_resume(trainer, model={"use": "mine"})
    check_resume(trainer, model={"use": "mine"}, deterministic=False)


def offers_backend(factory):
    from swebench_trainer import hookimpl

    class Offers:
        @hookimpl
        def register_backends(self, register):
            register("mine", lambda table: factory())

    return Offers()


def test_what_a_run_had_is_there_when_it_fails(trainer):
    class Breaks(FakeBackend):
        def train_dpo(self, pairs, settings, request):
            raise ZeroDivisionError

    trainer.add(offers_backend(Breaks))
    with pytest.raises(PluginFault, match="'mine' of a test failed in train_dpo"):
        trainer.run(model={"use": "mine"})
    assert trainer.last.hooks.stages() == ALL[: ALL.index("dpo")]
    assert "dpo" in trainer.last.output


def test_the_recorder_hears_every_lifecycle_hook():
    specs = {
        name
        for name, function in vars(hookspecs).items()
        if hasattr(function, "swebench_trainer_spec")
        and "event" in function.__code__.co_varnames
    }
    assert specs == set(LIFECYCLE)
    assert all(hasattr(HookRecorder(), name) for name in LIFECYCLE)


def test_secrets_are_found_wherever_they_are(trainer, monkeypatch):
    monkeypatch.setenv("A_KEY", 'sk-"very-secret')
    run = trainer.run(until="prepare")
    assert_no_secrets(run, "A_KEY")
    place = run.dir / "logs/attempt_1/swebench-train.log"
    content = place.read_text()
    place.write_text(content + 'Bearer sk-\\"very-secret')
    with pytest.raises(
        AssertionError, match=r"swebench-train\.log contains the value of"
    ):
        assert_no_secrets(run, "A_KEY")
    place.write_text(content)
    run.output = 'sk-"very-secret'
    with pytest.raises(AssertionError, match="printed"):
        assert_no_secrets(run, "A_KEY")
    monkeypatch.setenv("A_KEY", "short")
    with pytest.raises(AssertionError, match="must be set to at least eight"):
        assert_no_secrets(run, "A_KEY")


def test_light_imports(tmp_path, monkeypatch):
    assert_light_import("swebench_trainer.testing", "swebench_trainer.testing.fixtures")
    (tmp_path / "fat_plugin.py").write_text(
        "from swebench_trainer import hookimpl\n"
        "@hookimpl\ndef register_backends(register):\n    import docker\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AssertionError, match="fat_plugin loads docker"):
        assert_light_import("fat_plugin")


def test_recipes_are_written_as_toml():
    import tomllib

    assert tomllib.loads(to_toml(DEFAULTS)) == DEFAULTS
