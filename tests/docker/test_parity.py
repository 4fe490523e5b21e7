"""Parity of every grader with the unmodified harness, on bugs of real projects.

Each grader grades gold, no-op, and every mutation of gold in `mutations.py`. These must
be equal: the status, the harness's report, `report.json` byte by byte, and the status of
every test that the parser finds in the log.

Where the harness crashes (patches that are not UTF-8) or does not start (patches
without text), our graders return the status listed in `DIVERGES` and `REFUSED`. There is
no other difference.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from extended import EXTENDED
from mutations import MUTATIONS, mutate

from swebench_trainer import builtin
from swebench_trainer.contracts import GradeJob, Grader, Outcome
from swebench_trainer.grading.official import NOOP, TEST_LOG, test_spec
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.types import Candidate, Instance, Status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.docker,
    pytest.mark.stock,
    pytest.mark.timeout(3000),
]

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "build" / "realtasks"

GOLD, NO_OP = "gold", "no-op"

EVERYWHERE = {GOLD, NO_OP, "syntax_error"}
"""Patches for every task; each other mutation is for one task."""
if EXTENDED:
    EVERYWHERE |= {
        "new_file",
        "leaves_rejects",
        "wrong_fix",
        "half_fix",
        "rename",
        "binary",
        "crlf_file",
        "crlf_patch",
        "no_last_newline",
        "file_without_newline",
        "hunk_too_long",
        "hunk_too_short",
        "shifted_context",
        "reversed_gold",
        "already_applied",
    }

DIVERGES = {
    "latin1_patch": (Status.RESOLVED, "codec can't encode"),
    "latin1_file": (Status.RESOLVED, "codec can't decode"),
}
"""The harness crashes on these: it writes patches and reads diffs as strict UTF-8."""

REFUSED = {
    "lone_surrogate": (Status.MALFORMED, "codec can't encode"),
    "whitespace": (Status.NO_PATCH, "Patch Apply Failed"),
    "empty": (Status.NO_PATCH, ""),
}
"""Patches that our graders never run, and the harness's error for each."""

HOST_PROGRAMS = "namespace (host's programs)"
"""Runs without the image's packages and environment, which some tasks need."""

GRADERS: dict[str, dict[str, Any]] = {
    "stock": {"use": "stock", "workers": 4},
    "docker": {"use": "docker", "workers": 2},
    "namespace (image)": {"use": "namespace", "workers": 2, "programs": "image"},
    HOST_PROGRAMS: {"use": "namespace", "workers": 2},
}
OURS = sorted(GRADERS.keys() - {"stock"})


@dataclass(frozen=True)
class Case:
    """One patch of one task."""

    instance: Instance
    name: str
    patch: str

    @property
    def key(self) -> tuple[str, str]:
        return self.instance.instance_id, self.name

    def job(self, folder: Path) -> GradeJob:
        iid = self.instance.instance_id
        extraction = NOOP if self.name == NO_OP else "ok"
        candidate = Candidate(iid, 0, self.name, "", self.patch, extraction)
        return GradeJob(self.instance, candidate, folder / self.name / iid)


@dataclass(frozen=True)
class Graded:
    """The outcome of a case, and the files on disk."""

    outcome: Outcome
    report_json: bytes | None
    tests: Mapping[str, str]


Results = dict[tuple[str, str], Graded]


@pytest.fixture(scope="module")
def instances(docker_client: object) -> list[Instance]:
    build = ["tests/realtasks/build.py", str(TASKS)]
    done = subprocess.run([sys.executable, *build], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    entry = plugins().registry.get("source", "task-repo")
    source = entry.factory(entry.config(use="task-repo", path=TASKS))
    return list(source.load().instances)


@pytest.fixture(scope="module")
def cases(
    instances: list[Instance], tmp_path_factory: pytest.TempPathFactory
) -> list[Case]:
    found = []
    every = 3 if EXTENDED else len(instances)
    for number, instance in enumerate(instances):
        scratch = tmp_path_factory.mktemp("mutations") / "work"
        patches = {GOLD: instance.patch, NO_OP: ""}
        patches |= mutate(Path(instance.snapshot), instance.patch, scratch)
        for turn, (name, patch) in enumerate(patches.items()):
            if name in EVERYWHERE or turn % every == number % every:
                found.append(Case(instance, name, patch))
    return found


@pytest.fixture(scope="module")
def results(
    cases: list[Case], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Results]]:
    """The results of a grader for all cases; each grader runs once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))

        @functools.cache
        def grade(name: str) -> Results:
            folder = tmp_path_factory.mktemp(name)
            if name == HOST_PROGRAMS:
                return grade_admitted(name, cases, folder)
            return grade_cases(name, cases, folder)

        yield grade


@functools.cache
def plugins() -> Plugins:
    return Plugins({"builtin": builtin})


def make_grader(name: str) -> Grader:
    table = GRADERS[name] | {"timeout": 300, "retries": 0}
    table |= {"dedupe": "off", "cache": False}
    entry = plugins().registry.get("grader", table["use"])
    grader: Grader = entry.factory(entry.config.model_validate(table))
    return grader


def grade_cases(name: str, cases: list[Case], folder: Path) -> Results:
    found = grade_once(name, cases, folder)
    # A busy daemon sometimes loses the first output of an exec, so that the harness
    # believes that the patch did not apply.
    for again in ("again", "once more") if name == "stock" else ():
        lost = [case for case in cases if lacks_start_marker(case.job(folder).log_dir)]
        if lost:
            print(f"{name} lost output of {[case.key for case in lost]}")
            folder /= again
            found |= grade_once(name, lost, folder)
    return found


def grade_admitted(name: str, cases: list[Case], folder: Path) -> Results:
    """Grade the tasks whose gold passes and whose no-op fails; no other verdict counts."""
    trials = [case for case in cases if case.name in (GOLD, NO_OP)]
    tried = grade_cases(name, trials, folder)
    admitted = {
        key: graded for key, graded in tried.items() if is_admitted(tried, key[0])
    }
    ids = {instance_id for instance_id, _ in admitted}
    rest = [
        case
        for case in cases
        if case not in trials and case.instance.instance_id in ids
    ]
    return admitted | grade_cases(name, rest, folder)


def is_admitted(graded: Results, instance_id: str) -> bool:
    gold, nothing = (graded[instance_id, name].outcome for name in (GOLD, NO_OP))
    passes = gold.status is Status.RESOLVED
    return passes and nothing.status is Status.UNRESOLVED


def lacks_start_marker(log_dir: Path) -> bool:
    """Whether a log has the end marker of the tests' output but not its start marker."""
    log = log_dir / TEST_LOG
    text = log.read_text(errors="replace") if log.exists() else ""
    return ">>>>> End Test Output" in text and ">>>>> Start Test Output" not in text


def grade_once(name: str, cases: list[Case], folder: Path) -> Results:
    jobs = {case.job(folder).log_dir: case for case in cases}
    grader = make_grader(name)
    found = {}
    try:
        grader.check([case.instance for case in jobs.values()])
        for job, outcome in grader.grade([case.job(folder) for case in jobs.values()]):
            found[jobs[job.log_dir].key] = read_graded(job, outcome)
    finally:
        grader.close()
    return found


def read_graded(job: GradeJob, outcome: Outcome) -> Graded:
    from swebench.harness.grading import get_logs_eval

    report, log = job.log_dir / "report.json", job.log_dir / TEST_LOG
    written = report.read_bytes() if report.exists() else None
    tests: Mapping[str, str] = {}
    if written is not None:
        tests, _ = get_logs_eval(test_spec(job.instance), str(log))
    return Graded(outcome, written, tests)


@pytest.mark.parametrize("use", OURS)
def test_verdicts_equal_those_of_the_harness(
    use: str,
    results: Callable[[str], Results],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, official = results(use), results("stock")
    if use == HOST_PROGRAMS:
        assert len({instance_id for instance_id, _ in ours}) > 4
    else:
        assert ours.keys() == official.keys()
    wrong = {
        key: (ours[key].outcome, official[key].outcome)
        for key in ours
        if not agree(key[1], ours[key], official[key])
    }
    assert not wrong
    statuses = Counter(g.outcome.status.value for g in ours.values())
    tests = Counter(status for g in ours.values() for status in g.tests.values())
    with capsys.disabled():
        print(f"\n{use} and stock agree: {len(ours)} verdicts {dict(statuses)}")
        print(f"and {tests.total()} statuses of tests {dict(tests)}")


def agree(name: str, ours: Graded, official: Graded) -> bool:
    """Whether the results are equal, or differ as documented."""
    if name in DIVERGES:
        status, crash = DIVERGES[name]
        return (
            ours.outcome.status is status
            and ours.report_json is not None
            and official.outcome.status is Status.INFRA_ERROR
            and official.report_json is None
            and crash in official.outcome.reason
        )
    return (
        ours.outcome.status is official.outcome.status
        and ours.outcome.report == official.outcome.report
        and ours.report_json == official.report_json
        and ours.tests == official.tests
    )


def test_the_suite_detects_a_wrong_grader(
    results: Callable[[str], Results], cases: list[Case]
) -> None:
    official = results("stock")
    statuses = Counter(graded.outcome.status for graded in official.values())
    tasks = len({case.instance.instance_id for case in cases})
    assert len(cases) >= tasks * len(EVERYWHERE)
    assert {case.name for case in cases} == {GOLD, NO_OP, *MUTATIONS}
    for status in (Status.RESOLVED, Status.UNRESOLVED):
        assert statuses[status] > tasks, statuses
    for status in (
        Status.NOT_APPLIED,
        Status.NO_PATCH,
        Status.MALFORMED,
        Status.INFRA_ERROR,
    ):
        assert statuses[status], statuses
    for (_, name), graded in official.items():
        if name in (GOLD, "new_file", "shifted_context"):
            assert graded.outcome.status is Status.RESOLVED, graded.outcome
        if name in (NO_OP, "syntax_error", "already_applied"):
            assert graded.outcome.status is Status.UNRESOLVED, graded.outcome
        if name in ("leaves_rejects", "no_diff"):
            assert graded.outcome.status is Status.NOT_APPLIED, graded.outcome


def test_logs_of_two_patches_are_kept_separate(
    results: Callable[[str], Results], cases: list[Case]
) -> None:
    """The values that `agree` compares are neither empty nor the same for every patch."""
    official = results("stock")
    for instance_id in {case.instance.instance_id for case in cases}:
        gold, nothing = (official[instance_id, name] for name in (GOLD, NO_OP))
        assert gold.tests and nothing.tests
        assert gold.tests != nothing.tests
        assert not agree(GOLD, gold, nothing)


def test_the_harness_rejects_the_patches_that_we_do_not_run(
    instances: list[Instance], tmp_path: Path, results: Callable[[str], Results]
) -> None:
    """Uses `swebench eval` itself, because `stock` does not run these patches either."""
    patches = {
        "lone_surrogate": instances[0].patch + "\ud83d\n",
        "whitespace": " \n\t\n\n",
        "empty": "",
    }
    chosen = dict(zip(patches, instances, strict=False))
    rows = [
        {
            "instance_id": instance.instance_id,
            "model_name_or_path": "odd",
            "model_patch": patches[name],
        }
        for name, instance in chosen.items()
    ]
    (tmp_path / "odd.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code = "from swebench.cli.cli import main; main()"
    options = ("--run-id", "odd", "-j", "3", "-p", "odd.jsonl")
    command = [sys.executable, "-c", code, "eval", TASKS / "dataset.jsonl", *options]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    logs = tmp_path / "logs/run_evaluation/odd/odd"
    for name, instance in chosen.items():
        _, words = REFUSED[name]
        place = logs / instance.instance_id
        assert not (place / "report.json").exists()
        assert place.exists() is bool(words), name
        if words:
            assert words in (place / "run_instance.log").read_text(errors="replace")
    report = json.loads((tmp_path / "odd.odd.json").read_text())
    assert report["resolved_ids"] == []
    assert report["empty_patch_ids"] == [chosen["empty"].instance_id]
    for use in OURS:
        for (_, name), graded in results(use).items():
            if name in REFUSED:
                assert graded.outcome.status is REFUSED[name][0]
