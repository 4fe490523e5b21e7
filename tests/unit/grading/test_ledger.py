"""The ledger: each candidate is decided once, equal patches share a run, and
infrastructure failures are graded again."""

import dataclasses
import time

import pytest

from swebench_trainer.contracts import GoldRun, Outcome
from swebench_trainer.errors import StageError
from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.store.jsonl import read_rows
from swebench_trainer.testing import PATCH, FakeGrader, an_instance
from swebench_trainer.types import Candidate, Status, Verdict

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


def test_repeated_runs_do_not_share_a_run(grade):
    assert grade([candidate(0), candidate(1)], once_per_patch=False)[1] == 2


def test_a_candidate_with_a_verdict_is_not_graded_again(grade):
    given = [candidate(0), candidate(1, WRONG)]
    first, _ = grade(given)
    again, runs = grade(given)
    assert runs == 0
    assert again == first


def test_a_verdict_applies_to_equal_patches_later(grade):
    (first,), _ = grade([candidate(0)])
    both, runs = grade([candidate(0), candidate(1)])
    assert runs == 0
    assert both[1].log == first.log


def test_another_patch_of_the_same_sample_is_graded(grade):
    grade([candidate(0)])
    verdicts, runs = grade([candidate(0, WRONG)])
    assert (statuses(verdicts), runs) == (["unresolved"], 1)


def test_an_infrastructure_failure_stays_owed(grade):
    given = [candidate(0), candidate(1, WRONG)]
    verdicts, _ = grade(given, FakeGrader(faults=1))
    assert statuses(verdicts) == ["infra_error", "unresolved"]
    assert verdicts[0].reward is None
    with pytest.raises(StageError, match="1 of 2 candidates") as caught:
        require_decided(verdicts, 0)
    assert "grade.max_faults=1" in caught.value.hint
    require_decided(verdicts, 1)
    again, runs = grade(given)
    assert (statuses(again), runs) == (["resolved", "unresolved"], 1)


def test_failures_that_a_candidate_can_cause_do_not_fail_the_stage():
    def verdict(status, **report):
        return Verdict("i", 0, "m", status, report)

    require_decided(
        [verdict(Status.OOM), verdict(Status.INFRA_ERROR, resolved=False)], 0
    )
    with pytest.raises(StageError):
        require_decided([verdict(Status.INFRA_ERROR)], 0)


class LosesSandboxes(FakeGrader):
    """Loses the sandbox of every patch except gold."""

    def _outcome(self, job):
        outcome = super()._outcome(job)
        if outcome.status is Status.RESOLVED:
            return outcome
        return Outcome(Status.INFRA_ERROR, {}, reason="lost", explained=True)


def test_a_patch_that_loses_its_own_sandbox_is_masked_and_not_graded_again(grade):
    given = [candidate(0, WRONG), candidate(1)]
    verdicts, _ = grade(given, LosesSandboxes())
    require_decided(verdicts, 0)
    assert statuses(verdicts) == ["infra_error", "resolved"]
    assert verdicts[0].reward is None
    again, runs = grade(given)
    assert (again, runs) == (verdicts, 0)


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


def test_an_empty_patch_is_no_patch(grade):
    verdicts, runs = grade([candidate(patch="  \n")])
    assert (verdicts[0].status, runs) == (Status.NO_PATCH, 0)


def test_a_model_named_no_op_is_an_ordinary_model(grade):
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


def test_jobs_have_their_repeat_number_and_gold_run(grade):
    asked = []

    def gold(instance):
        asked.append(instance.instance_id)
        return GoldRun(2.5) if instance is INSTANCES[0] else None

    grader = FakeGrader()
    given = [candidate(n, WRONG + "\n" * n) for n in range(3)]
    given.append(candidate(0, WRONG, number=2))
    options = {"repeat": lambda c: c.sample + 4, "gold": gold}
    grade(given, grader, **options)
    jobs = {(j.instance.instance_id, j.candidate.sample): j for j in grader.graded}
    assert [job.repeat for job in jobs.values()] == [4, 5, 6, 4]
    assert [job.gold for job in jobs.values()] == [GoldRun(2.5)] * 3 + [None]
    assert asked == [i.instance_id for i in INSTANCES], "gold is asked for once"
    grade(given, grader, **options)
    assert len(asked) == 2, "what is decided needs no gold"


class Slow(FakeGrader):
    """Times out every patch except gold, without running it."""

    def _outcome(self, job):
        outcome = super()._outcome(job)
        if outcome.status is Status.RESOLVED:
            return dataclasses.replace(outcome, answered_by="tree")
        return Outcome(Status.TIMEOUT, {}, seconds={"test": 60.0004}, explained=True)


def test_an_explained_timeout_is_stored_in_the_verdict(grade, tmp_path):
    given = [candidate(0, WRONG), candidate(1)]
    verdicts, _ = grade(given, Slow())
    assert [v.explained for v in verdicts] == [True, False]
    assert verdicts[0].reward == 0
    # An equal patch that comes later is explained too.
    verdicts, runs = grade([*given, candidate(2, WRONG)], Slow())
    assert (verdicts[2].explained, runs) == (True, 0)
    rows = read_rows(tmp_path / "timings.jsonl")
    names = {"instance_id": INSTANCES[0].instance_id, "model": "m"}
    assert rows == [
        {**names, "sample": 0, "answered_by": "run", "test": 60.0},
        {**names, "sample": 1, "answered_by": "tree"},
    ]


def test_ten_thousand_candidates_are_graded_quickly(tmp_path):
    instances = [an_instance(number) for number in range(500)]
    given = [
        Candidate(i.instance_id, sample, "m", "", f"{WRONG}# {sample}\n")
        for i in instances
        for sample in range(20)
    ]
    begin = time.monotonic()
    for jobs in (10_000, 0):
        grader = FakeGrader()
        ledger = Ledger(tmp_path, instances, run_id="run")
        verdicts = ledger.grade(grader, given, lambda *_: None)
        assert (len(verdicts), len(grader.graded)) == (10_000, jobs)
    assert time.monotonic() - begin < 30, "it takes about two seconds"
