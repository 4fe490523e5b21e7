"""The checks of `swebench-train doctor`, each on a machine that lacks something."""

from __future__ import annotations

import dataclasses
import gc
import json
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from swebench_trainer import builtin, doctor as checks
from swebench_trainer.__main__ import run_command_line
from swebench_trainer.commands.doctor import Examination
from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.doctor import Finding
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.official import NOOP
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.reporting.listings import Trial
from swebench_trainer.testing import FakeGrader, an_instance
from swebench_trainer.types import Instance, Status


def instances(count: int, image: str = "example/greet:{}") -> list[Instance]:
    return [an_instance(n, image=image.format(n)) for n in range(count)]


def test_installed_packages_are_listed() -> None:
    finding = checks.check_packages()
    assert finding.level == "ok"
    assert "swebench 5." in finding.text


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_trl(name: str) -> str:
        if name == "trl":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(checks, "version", without_trl)
    finding = checks.check_packages()
    assert finding.level == "problem"
    assert finding.text.endswith("missing: trl")


def test_missing_programs_are_named(tmp_path: Path) -> None:
    (tmp_path / "git").touch(mode=0o755)
    finding = checks.check_programs(str(tmp_path))
    assert finding.level == "warning"
    assert "missing: bash, patch" in finding.text
    assert finding.hint.endswith("install bash patch")


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    yield
    with warnings.catch_warnings():  # the SDK does not close failed connections
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.usefixtures("no_docker")
def test_a_missing_daemon_is_a_warning() -> None:
    finding, info = checks.docker_info()
    assert info is None
    assert finding.level == "warning"
    assert "docker info" in finding.hint


@pytest.mark.parametrize(
    ("config", "logged_in", "shown"),
    [
        (None, False, "not logged in to the default registry"),
        ("{", False, "not logged in to the default registry"),
        ({"auths": {"index": {"auth": "SECRET"}}}, True, "logged in to the default"),
        ({"auths": {"other": {"auth": "SECRET"}}}, False, "but to 1 others"),
        ({"credHelpers": {"index": "pass"}}, True, "logged in to the default"),
    ],
)
def test_registry_login_is_detected(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: object,
    logged_in: bool,
    shown: str,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
    finding, found = checks.check_login({"IndexServerAddress": "index"})
    assert found is logged_in
    assert shown in finding.text
    assert "SECRET" not in str(finding)


def test_a_runtime_that_the_daemon_lacks_is_a_problem_with_a_next_step() -> None:
    info = {"Runtimes": {"runc": {"path": "runc"}}}
    assert checks.check_runtime(info, "runc").level == "ok"
    assert checks.check_runtime(info, "io.containerd.runsc.v1").level == "ok"
    finding = checks.check_runtime(info, "runsc", "ssh://a")
    assert finding.level == "problem"
    assert "ssh://a" in finding.text
    assert "docker run --runtime runsc" in finding.hint


def test_present_images_are_ok() -> None:
    data = instances(3)
    finding = checks.check_images(data, {i.image for i in data}, logged_in=False)
    assert finding == Finding("ok", "images", "all 3 present")


@pytest.mark.parametrize(
    ("count", "logged_in", "hours"),
    [(731, False, 42), (731, True, 18), (101, False, 6), (100, False, 0)],
)
def test_pull_limits_are_estimated(count: int, logged_in: bool, hours: int) -> None:
    finding = checks.check_images(instances(count), set(), logged_in)
    assert f"{count} of {count} must be pulled" in finding.text
    assert (f"about {hours} hours" in finding.text) is bool(hours)
    assert finding.level == ("warning" if hours else "ok")


def test_other_registries_have_no_pull_limit() -> None:
    data = instances(500, "registry.example:5000/greet:{}")
    finding = checks.check_images(data, set(), logged_in=False)
    assert (finding.level, finding.text) == ("ok", "500 of 500 must be pulled")


def test_instances_without_an_image_are_a_problem() -> None:
    data = [*instances(2), an_instance(3, image="")]
    finding = checks.check_images(data, set(), logged_in=False)
    assert finding.level == "problem"
    assert "1 of 3" in finding.text


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "100", "more privileges"),
    ],
)
def test_the_setting_that_forbids_namespaces_is_named(
    tmp_path: Path, name: str, value: str, hint: str
) -> None:
    file = tmp_path / "sys" / name
    file.parent.mkdir(parents=True)
    file.write_text(f"{value}\n")
    assert hint in checks._switch(tmp_path)


def test_missing_namespaces_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise PrerequisiteError("the kernel says no")

    monkeypatch.setattr(
        "swebench_trainer.grading.namespace.grader.repository_view", refuse
    )
    finding, works = checks.check_namespaces()
    assert (finding.level, finding.text, works) == (
        "warning",
        "the kernel says no",
        False,
    )
    assert finding.hint


@pytest.mark.parametrize(("low", "level"), [(0, "ok"), (10**20, "warning")])
def test_low_disk_space_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, low: int, level: str
) -> None:
    monkeypatch.setattr(checks, "LOW_DISK", low)
    finding = checks.check_disk("runs", tmp_path / "not" / "there")
    assert finding.level == level
    assert "GB free for runs" in finding.text
    assert (str(tmp_path) in finding.hint) is (level == "warning")


def test_the_sample_prefers_present_images() -> None:
    data = [*instances(20), an_instance(99, FAIL_TO_PASS=())]
    present = {data[3].image, data[7].image, data[20].image}
    sample = checks.choose_sample(data, 4, present)
    assert {i.image for i in sample[:2]} == {data[3].image, data[7].image}
    assert len(sample) == 4
    assert sample == checks.choose_sample(data, 4, present)
    assert data[20] not in checks.choose_sample(data, 50, present)


# --- With a grader --------------------------------------------------------------------


class Machine(FakeGrader):
    """A fake grader that can refuse to work or fail gold."""

    refuses = breaks_gold = False
    closed = 0

    def check(self, instances: Sequence[Instance]) -> None:
        if self.refuses:
            raise PrerequisiteError("no daemon", hint="Start it.")

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        for job, outcome in super().grade(jobs):
            if self.breaks_gold and job.candidate.extraction != NOOP:
                broken = Outcome(Status.UNRESOLVED, {}, reason="3 tests fail")
                yield job, dataclasses.replace(broken, seconds={"test": 2.0})
            else:
                yield job, dataclasses.replace(outcome, seconds={"test": 1.0})

    def close(self) -> None:
        Machine.closed += 1


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    for name in ("refuses", "breaks_gold"):
        monkeypatch.setattr(Machine, name, False)
    plugins = Plugins({"builtin": builtin})
    plugins.registry.add("grader", "fake", lambda _: Machine(), origin="test")
    return plugins


def examine(plugins: Plugins, code: int = 0, **options: object) -> Examination:
    table = GradeTable(use="fake")
    shown: list[Finding] = []
    report = Examination(plugins, shown.append, instances(5), table, **options)  # type: ignore[arg-type]  # by name
    assert report.run() == code
    assert shown == report.findings
    return report


def texts(report: Examination, what: str) -> list[str]:
    return [finding.text for finding in report.findings if finding.what == what]


@pytest.mark.usefixtures("no_docker")
class TestExamination:
    def test_a_working_machine_has_no_problems(self, plugins: Plugins) -> None:
        closed = Machine.closed
        report = examine(plugins, sample=2)
        assert texts(report, "fake") == [
            "gold passes and no-op fails on all 2 instances tried"
        ]
        assert [trial.patch for trial in report.trials] == ["gold", "no-op"] * 2
        assert report.stock_trials == []
        assert Machine.closed == closed + 1

    def test_gold_that_fails_is_a_problem(
        self, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Machine, "breaks_gold", True)
        report = examine(plugins, code=1, sample=1)
        (text,) = texts(report, "fake")
        assert text.startswith("gold of example__greet-")
        assert text.endswith("is unresolved: 3 tests fail")

    def test_a_grader_that_does_not_work_exits_with_three(
        self, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Machine, "refuses", True)
        report = examine(plugins, code=3)
        assert texts(report, "fake") == ["no daemon"]

    def test_nothing_is_left_in_the_working_directory(
        self, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        examine(plugins, sample=1)
        assert list(Path().iterdir()) == []

    def test_an_empty_sample_grades_nothing(self, plugins: Plugins) -> None:
        report = examine(plugins, sample=0)
        assert report.trials == []

    def test_neither_docker_nor_namespaces_exits_with_three(
        self, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refused = Finding("warning", "namespaces", "no"), False
        monkeypatch.setattr(checks, "check_namespaces", lambda: refused)
        report = Examination(plugins, lambda _: None)
        assert report.run() == 3
        assert texts(report, "grading") == ["neither Docker nor namespaces work"]

    def test_the_command_prints_its_findings(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        works = Finding("ok", "namespaces", "sandboxes work"), True
        monkeypatch.setattr(checks, "check_namespaces", lambda: works)
        assert run_command_line(["doctor"]) == 0
        lines = capsys.readouterr().out
        assert "warning  docker      no answer" in lines
        assert "ok       namespaces  sandboxes work" in lines


def some_trials(*statuses: Status, seconds: float = 1.0) -> list[Trial]:
    return [Trial(f"i-{n}", "gold", s, seconds) for n, s in enumerate(statuses)]


def test_equal_statuses_are_parity() -> None:
    ours = some_trials(Status.RESOLVED, Status.UNRESOLVED)
    same = some_trials(Status.RESOLVED, Status.UNRESOLVED, seconds=20.0)
    finding = checks.judge_parity(ours, same)
    assert (finding.level, finding.text) == (
        "ok",
        "all 2 statuses equal the harness's, 20.0 times as fast",
    )


def test_a_status_that_differs_is_a_problem() -> None:
    ours = some_trials(Status.RESOLVED, Status.RESOLVED)
    finding = checks.judge_parity(
        ours, some_trials(Status.RESOLVED, Status.NOT_APPLIED)
    )
    assert finding.level == "problem"
    assert "1 of 2 statuses differ, for example i-1" in finding.text


def test_wrong_data_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_command_line(["doctor", "--data", str(tmp_path)]) == 1
    assert "not a task repo" in capsys.readouterr().err


def test_an_unknown_grader_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["doctor", "--grader", "dokcer"]) == 2
    assert "docker" in capsys.readouterr().err


def test_a_failure_of_the_machine_is_not_blamed_on_the_instance() -> None:
    trials = [
        Trial("i-1", "gold", Status.INFRA_ERROR, 1.0, "no such host"),
        Trial("i-2", "gold", Status.UNRESOLVED, 1.0),
    ]
    machine, instance = checks.judge_trials("docker", trials)
    assert "exclude" not in machine.hint
    assert "exclude" in instance.hint
