"""What a stage reads is declared, so a rerun reaches everything downstream."""

import dataclasses

import pytest

from swebench_trainer.recipe.models import (
    DataTable,
    DpoTable,
    EvaluateTable,
    GenerateTable,
    GradeTable,
    ModelTable,
    PairsTable,
    Recipe,
    SftTable,
)
from swebench_trainer.stages import graph
from swebench_trainer.stages.context import UndeclaredReadError
from swebench_trainer.stages.graph import STAGES, dependents, open_context
from swebench_trainer.store.rundir import RunDir

pytest_plugins = ["swebench_trainer.testing.fixtures"]

WITHOUT_PAIRS = {
    "pairs": None,
    "dpo": None,
    "evaluate": None,
    "publish": {"use": "directory"},
}


def test_stages_read_only_earlier_stages():
    names = [stage.name for stage in STAGES]
    for place, stage in enumerate(STAGES):
        assert set(stage.reads) <= set(names[:place]), stage.name


def test_a_context_refuses_what_its_stage_does_not_declare(tmp_path):
    context = open_context("dpo", _recipe(), RunDir(tmp_path), None)
    assert context.input("pairs").name == "pairs"
    assert context.dir.name == "dpo" == context.input("dpo").name
    for undeclared in ("prepare", "grade", "evaluate"):
        with pytest.raises(UndeclaredReadError, match=f"dpo reads {undeclared}"):
            context.input(undeclared)
    with pytest.raises(UndeclaredReadError):
        context.instances()
    with pytest.raises(UndeclaredReadError):
        context.summary("grade")


def test_a_context_has_no_files_of_stages_that_the_recipe_left_out(tmp_path):
    run = RunDir(tmp_path)
    for name in ("sft", "dpo"):
        run.stage(name).file("model").mkdir(parents=True)
    context = open_context("evaluate", _recipe(dpo=None), run, None)
    assert context.weights("sft") and context.weights("dpo") is None


def test_a_table_that_the_stage_needs_is_there_or_an_error(tmp_path):
    context = open_context("evaluate", _recipe(grade=None), RunDir(tmp_path), None)
    assert context.table(ModelTable) == _recipe().model
    with pytest.raises(LookupError, match="evaluate needs a GradeTable"):
        context.table(GradeTable)


def _recipe(**changes):
    tables = {
        "data": DataTable(use="rows"),
        "model": ModelTable(),
        "sft": SftTable(),
        "generate": GenerateTable(),
        "grade": GradeTable(),
        "pairs": PairsTable(),
        "dpo": DpoTable(),
        "evaluate": EvaluateTable(),
    }
    return Recipe(schema_version=1, name="test", **(tables | changes))


def test_a_model_card_is_downstream_of_what_it_reports(trainer):
    """Without [pairs] and [dpo] nothing else ties `publish` to the verdicts."""
    trainer.run(**WITHOUT_PAIRS)
    card = trainer.last.stage("publish") / "release/README.md"
    before = card.read_text()

    for stage in ("prepare", "grade"):
        run = trainer.run(redo=[stage], **WITHOUT_PAIRS)
        aside = {path.name for path in (run.dir / "superseded").iterdir()}
        assert any(name.startswith("publish.") for name in aside), stage
    assert card.read_text() == before
    names = [stage.name for stage in STAGES]
    assert dependents(["grade"], STAGES)[-1] == names[-1] == "publish"


def test_every_stage_of_a_whole_run_reads_only_what_it_declares(trainer):
    run = trainer.run(publish={"use": "directory"})
    assert run.hooks.stages() == [stage.name for stage in STAGES]


@pytest.mark.parametrize("name", [stage.name for stage in STAGES if stage.reads])
def test_a_stage_that_declares_nothing_fails(trainer, monkeypatch, name):
    """The check is real: without its declarations no stage gets through."""
    cut = tuple(
        dataclasses.replace(stage, reads=()) if stage.name == name else stage
        for stage in STAGES
    )
    monkeypatch.setattr(graph, "STAGES", cut)
    with pytest.raises(UndeclaredReadError, match=f"Stage {name} reads"):
        trainer.run(publish={"use": "directory"})
