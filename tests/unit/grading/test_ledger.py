"""The ledger: decided once, equal patches together, faults of the machine owed."""

import dataclasses

import pytest

from swebench_trainer.errors import StageError
from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.testing import PATCH, FakeGrader, an_instance
from swebench_trainer.types import Candidate, Status

INSTANCES = [an_instance(1), an_instance(2)]
WRONG = PATCH.replace("Hello,", "Bye,")


def candidate(sample=0, patch=PATCH, number=1, **changes):
    name = INSTANCES[number - 1].instance_id
    return dataclasses.replace(Candidate(name, sample, "m", "text", patch), **changes)


@pytest.fixture
def grade(tmp_path):
    def grade(candidates, grader=None, **options):
        grader = grader or FakeGrader()
        ledger = Ledger(tmp_path, INSTANCES, run_id="run")
        verdicts = ledger.grade(grader, candidates, lambda *_: None, **options)
        return verdicts, len(grader.graded)

    return grade


def statuses(verdicts):
    return [str(v.status) for v in verdicts]


def test_verdicts_come_in_the_order_of_the_candidates(grade):
    given = [candidate(1, WRONG), candidate(0), candidate(2, "no diff\n")]
    assert statuses(grade(given)[0]) == ["unresolved", "resolved", "not_applied"]


def test_equal_patches_of_an_instance_run_once(grade):
    given = [candidate(0), candidate(1), candidate(0, number=2), candidate(2, WRONG)]
    verdicts, runs = grade(given)
    assert runs == 3
    assert [v.sample for v in verdicts] == [0, 1, 0, 2]
    assert verdicts[0].log == verdicts[1].log


def test_repeated_runs_can_be_asked_for(grade):
    assert grade([candidate(0), candidate(1)], once_per_patch=False)[1] == 2


def test_what_is_decided_is_not_graded_again(grade):
    given = [candidate(0), candidate(1, WRONG)]
    first, _ = grade(given)
    again, runs = grade(given)
    assert runs == 0
    assert again == first


def test_a_patch_that_was_decided_decides_its_equals_later(grade):
    (first,), _ = grade([candidate(0)])
    both, runs = grade([candidate(0), candidate(1)])
    assert runs == 0
    assert both[1].log == first.log


def test_another_patch_under_the_same_name_is_graded(grade):
    grade([candidate(0)])
    verdicts, runs = grade([candidate(0, WRONG)])
    assert (statuses(verdicts), runs) == (["unresolved"], 1)


def test_a_fault_of_the_machine_is_owed(grade):
    given = [candidate(0), candidate(1, WRONG)]
    verdicts, _ = grade(given, FakeGrader(faults=1))
    assert statuses(verdicts) == ["infra_error", "unresolved"]
    assert verdicts[0].reward is None
    with pytest.raises(StageError, match="1 of 2 could not be graded") as caught:
        require_decided(verdicts, 0)
    assert "grade.max_faults=1" in caught.value.hint
    require_decided(verdicts, 1)
    again, runs = grade(given)
    assert (statuses(again), runs) == (["resolved", "unresolved"], 1)


@pytest.mark.parametrize(
    ("extraction", "status"),
    [
        ("failed:no answer", Status.NO_PATCH),
        ("failed:nothing changes", Status.NO_PATCH),
        ("failed:search text is not unique", Status.MALFORMED),
    ],
)
def test_without_a_patch_nothing_runs(grade, extraction, status):
    verdicts, runs = grade([candidate(patch="", extraction=extraction)])
    assert (verdicts[0].status, verdicts[0].reward, runs) == (status, -1, 0)


def test_an_empty_patch_is_none(grade):
    verdicts, runs = grade([candidate(patch="  \n")])
    assert (verdicts[0].status, runs) == (Status.NO_PATCH, 0)


def test_a_model_that_calls_itself_no_op_is_a_model(grade):
    verdicts, _ = grade([candidate(model="no-op", patch="")])
    assert verdicts[0].status is Status.NO_PATCH


def test_every_model_has_its_own_logs(grade):
    names = ["org/m", "org__m", "org_m", "../m", ".m", "m", "é", "x" * 300]
    grader = FakeGrader()
    grade([candidate(model=name) for name in names], grader, once_per_patch=False)
    folders = {job.log_dir for job in grader.graded}
    assert len(folders) == len(names)
    assert all(".." not in folder.parts for folder in folders)
    assert all(len(part.encode()) < 200 for folder in folders for part in folder.parts)
