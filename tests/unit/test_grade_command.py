"""`grade` chooses limits that suit the data."""

import pytest

from swebench_trainer.commands.grade import GradeOptions, grade_table
from swebench_trainer.commands.inputs import SourceOptions, load_plugins, open_source
from swebench_trainer.errors import DataError, RecipeError
from swebench_trainer.types import Instance

ORDINARY = Instance("a__b-1", "a/b", "c", "p", "d")
PRO = Instance("a__b-2", "a/b", "c", "p", "d", apply_mode="pro")


def limits(instance, grader="docker", **options):
    options = GradeOptions(SourceOptions("rows.jsonl"), [], None, grader, **options)
    table = grade_table(load_plugins(), options, [instance])
    return table.timeout, getattr(table, "memory", None)


def test_swebench_pro_gets_the_limits_of_its_own_evaluation():
    assert limits(ORDINARY) == (1800, "8g")
    assert limits(PRO) == (3600, "16g")
    assert limits(PRO, "stock") == (3600, None)


def test_given_limits_take_precedence():
    assert limits(PRO, timeout=60, memory="2g") == (60, "2g")


@pytest.mark.parametrize(("grader", "memory"), [("stock", "2g"), ("docker", "plenty")])
def test_a_memory_limit_that_cannot_be_set_is_refused(grader, memory):
    with pytest.raises(RecipeError, match="memory"):
        limits(ORDINARY, grader, memory=memory)


def test_options_for_swebench_pro_need_its_rows(tmp_path):
    for options in (
        SourceOptions(str(tmp_path), scripts="https://host/owner/name"),
        SourceOptions("rows.jsonl", digests=tmp_path / "digests.json"),
    ):
        with pytest.raises(DataError, match="--scripts"):
            open_source(load_plugins(), options)
