"""The real sandbox; skipped, with the reason, on machines that do not allow it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tiny
from tiny import ADD, DOUBLE, Task, make_task

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.namespace import grader as namespace_grader, launch
from swebench_trainer.grading.namespace.cgroup import cgroup_parents
from swebench_trainer.grading.namespace.grader import (
    NamespaceGrader,
    NamespaceTable,
    repository_view,
)
from swebench_trainer.grading.official import NOOP
from swebench_trainer.types import Status

Running = Callable[[str], Task]


@pytest.fixture(autouse=True, scope="module")
def _sandbox() -> None:
    try:
        repository_view()
    except PrerequisiteError as error:
        pytest.skip(error.message)


def grade(*jobs: GradeJob, timeout: int = 60, workers: int = 2) -> list[Outcome]:
    grader = NamespaceGrader(
        NamespaceTable(use="namespace", timeout=timeout, workers=workers, retries=0)
    )
    grader.check([job.instance for job in jobs])
    outcomes = {job.log_dir: outcome for job, outcome in grader.grade(jobs)}
    grader.close()
    return [outcomes[job.log_dir] for job in jobs]


def log_of(job: GradeJob) -> str:
    return (job.log_dir / "test_output.txt").read_text()


def output_of(task: Task, **options: int) -> str:
    job = task.job(tiny.GOLD)
    grade(job, **options)
    return log_of(job)


@pytest.mark.parametrize(
    ("patch", "status"),
    [
        (tiny.GOLD, Status.RESOLVED),
        (tiny.NEW_FILE, Status.RESOLVED),
        (tiny.WRONG, Status.UNRESOLVED),
        (tiny.SYNTAX_ERROR, Status.UNRESOLVED),
        (tiny.MALFORMED, Status.NOT_APPLIED),
        (tiny.NO_NEWLINE, Status.NOT_APPLIED),
        ("", Status.NO_PATCH),
        (" \n\t", Status.NO_PATCH),
        ("\ud800", Status.MALFORMED),
    ],
)
def test_each_patch_gets_its_status(task: Task, patch: str, status: Status) -> None:
    job = task.job(patch)
    (outcome,) = grade(job)
    assert outcome.status is status, outcome
    assert outcome.flags == ()
    report = job.log_dir / "report.json"
    if outcome.report:
        written = json.loads(report.read_text())
        assert written == {task.instance.instance_id: outcome.report}
    else:
        assert not report.exists()


def test_no_op_runs_the_tests_of_the_unpatched_repository(task: Task) -> None:
    (outcome,) = grade(task.job("", extraction=NOOP))
    tests = outcome.report["tests_status"]
    assert outcome.status is Status.UNRESOLVED
    assert tests["FAIL_TO_PASS"] == {"success": [], "failure": [ADD]}
    assert tests["PASS_TO_PASS"] == {"success": [DOUBLE], "failure": []}


def test_concurrent_candidates_do_not_interact(task: Task) -> None:
    jobs = [
        task.job(patch, name=str(number))
        for number, patch in enumerate([tiny.GOLD, tiny.WRONG] * 3)
    ]
    statuses = [outcome.status for outcome in grade(*jobs)]
    assert statuses == [Status.RESOLVED, Status.UNRESOLVED] * 3


def test_a_second_run_replaces_the_files_of_the_first(task: Task) -> None:
    grade(task.job(tiny.GOLD))
    job = task.job(tiny.MALFORMED)
    grade(job)
    assert not (job.log_dir / "report.json").exists()
    assert not (job.log_dir / "test_output.txt").exists()


def test_the_host_is_not_visible(task_running: Running, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    shown = output_of(
        task_running(
            f"cat {secret} /etc/shadow; ls -A /home /root /tmp; cat /proc/1/cmdline; "
            "cat /proc/net/dev | wc -l; env | sort"
        )
    )
    assert "hidden" not in shown
    assert f"{secret}: No such file" in shown
    assert "/etc/shadow: No such file" in shown
    assert "HOME=/root\n" in shown
    assert "LANG=C.UTF-8\n" in shown
    names = {line.split("=")[0] for line in shown.split("+ sort\n")[1].splitlines()}
    assert not names & (
        os.environ.keys() - {"HOME", "LANG", "PATH", "PWD", "SHLVL"}
    ) - {
        "OLDPWD",
        "HOSTNAME",
        "_",
    }


def test_nothing_of_the_host_can_be_changed(task_running: Running) -> None:
    shown = output_of(
        task_running(
            f"touch /usr/x {sys.prefix}/x; echo x > /proc/sys/kernel/core_pattern; "
            "mount -t tmpfs none /mnt; unshare -Ur true && echo nested; "
            "mount -o remount,rw /usr; umount /proc"
        )
    )
    assert shown.count("Read-only file system") >= 3
    assert not Path("/usr/x").exists()
    assert "nested\n" not in shown.replace("echo nested", "")


def test_the_repository_is_git_and_writable(task_running: Running) -> None:
    shown = output_of(
        task_running("git log --oneline | wc -l; rm calc.py; mkdir calc.py; ls -A")
    )
    assert "\n1\n" in shown
    assert "rm: cannot" not in shown


def test_only_localhost_is_reachable(task_running: Running) -> None:
    code = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).close()\n"
        "print('local' + 'host answers')\n"
        "try: socket.create_connection(('192.0.2.1', 80), timeout=2)\n"
        "except OSError as error: print('far' + 'away', error)\n"
    )
    shown = output_of(task_running(f'python3 -c "{code}"'))
    assert "localhost answers" in shown
    assert "faraway [Errno 101]" in shown


def test_signals_are_those_of_a_fresh_shell(task_running: Running) -> None:
    shown = output_of(task_running("grep SigIgn /proc/self/status"))
    assert "SigIgn:\t0000000000000000" in shown


def test_deadline_kills_at_once_and_keeps_the_log(task: Task) -> None:
    job = task.job(tiny.HANGS)
    started = time.monotonic()
    (outcome,) = grade(job, timeout=1)
    assert outcome.status is Status.TIMEOUT
    assert time.monotonic() - started < 5
    assert log_of(job).endswith("\n\nTimeout error: 1 seconds exceeded.")
    assert "Start Test Output" in log_of(job)


def test_a_daemon_does_not_outlive_its_sandbox(task_running: Running) -> None:
    started = time.monotonic()
    mark = f"600.{os.getpid()}"
    output_of(task_running(f"(setsid sleep {mark} &) ; true"))
    assert time.monotonic() - started < 10
    sleeping = subprocess.run(["pgrep", "-f", f"sleep {mark}"], capture_output=True)
    assert sleeping.stdout == b""


TRAINER = """
import sys
from pathlib import Path
from swebench_trainer.grading.namespace.grader import NamespaceGrader, NamespaceTable
from tiny import GOLD, make_task
job = make_task(Path(sys.argv[1]), test_command="(setsid sleep 60 &); sleep 60").job(GOLD)
list(NamespaceGrader(NamespaceTable(use="namespace", workers=1)).grade([job]))
"""


def test_no_sandbox_outlives_a_killed_trainer(tmp_path: Path) -> None:
    trainer = psutil.Popen(
        [sys.executable, "-c", TRAINER, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(tiny.__file__).parent)},
    )
    processes: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 30
        sleeping = 0
        while sleeping < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie
                processes = trainer.children(recursive=True)
                sleeping = sum("sleep" in process.cmdline() for process in processes)
    finally:
        trainer.kill()
        trainer.wait()
        _, left = psutil.wait_procs(processes, timeout=3)
        for process in left:
            process.kill()
    assert left == []


def test_a_sandbox_that_does_not_start_is_an_infrastructure_error(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "START_SECONDS", 0)
    (outcome,) = grade(task.job(tiny.GOLD))
    assert outcome.status is Status.INFRA_ERROR
    assert "the sandbox did not start" in outcome.reason


def test_killed_tests_are_oom(task_running: Running) -> None:
    (outcome,) = grade(task_running("bash -c 'kill -9 $$'").job(tiny.GOLD))
    assert outcome.status is Status.OOM


def test_invalid_bytes_in_the_output_are_replaced(task_running: Running) -> None:
    task = task_running(
        r"python3 -m unittest -v test_calc; printf 'a\xe2b\0c\r\nd\re\n'"
    )
    (outcome,) = grade(task.job(tiny.GOLD))
    assert outcome.status is Status.RESOLVED
    assert "a\ufffdb\0c" in log_of(task.job(tiny.GOLD))


def test_endless_output_is_bounded(
    task_running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "swebench_trainer.grading.capped_log.CappedLog.__init__.__kwdefaults__",
        {"head": 1 << 17, "tail": 1 << 17},
    )
    shown = output_of(task_running("timeout 0.2 yes"), timeout=20)
    assert len(shown) < 1 << 19
    assert ">>>>> Test Exit Code: 124" in shown


def test_closing_ends_running_sandboxes(task: Task) -> None:
    grader = NamespaceGrader(NamespaceTable(use="namespace", workers=2))
    jobs = [task.job(tiny.HANGS, name="hangs"), task.job(tiny.GOLD, name="gold")]
    outcomes = grader.grade(jobs)
    assert next(outcomes)[0] is jobs[1]
    started = time.monotonic()
    outcomes.close()
    assert time.monotonic() - started < 5
    grader.close()


def test_check_rejects_instances_without_files_or_image(task: Task) -> None:
    instance = dataclasses.replace(task.instance, snapshot="", image="")
    grader = NamespaceGrader(NamespaceTable(use="namespace"))
    with pytest.raises(PrerequisiteError, match="has neither"):
        grader.check([instance])


def test_check_rejects_images_without_overlays(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace_grader, "repository_view", lambda: "copy")
    instance = dataclasses.replace(task.instance, snapshot="", image="a/b:1")
    grader = NamespaceGrader(NamespaceTable(use="namespace"))
    grader.check([task.instance])
    with pytest.raises(PrerequisiteError, match="overlayfs"):
        grader.check([instance])


@pytest.mark.parametrize(
    ("works", "fails"),
    [
        (b"rm launch.py\n", b"rm missing.py\n"),
        (b"mkdir launch.py\n", b"touch launch.py\nmkdir launch.py\n"),
        (b"mkdir launch.py\n", b"mkdir launch.py\ntouch launch.py/x\n"),
        (b"echo written", b"echo otherwise"),
        (b"-s cgroup.py", b"-s missing.py"),
    ],
)
def test_the_probe_detects_missing_overlay_features(
    works: bytes, fails: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = namespace_grader.PROBE
    assert works in probe and namespace_grader._probe(copy=False) == ""
    monkeypatch.setattr(namespace_grader, "PROBE", probe.replace(works, fails))
    assert namespace_grader._probe(copy=False)


def test_check_fails_where_namespaces_are_forbidden(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine where the script runs but cannot build a sandbox."""
    broken = tmp_path / "sandbox.py"
    broken.write_text(launch.SANDBOX.read_text().replace('"/sys"', '"/nowhere"'))
    monkeypatch.setattr(launch, "SANDBOX", broken)
    repository_view.cache_clear()
    try:
        with pytest.raises(PrerequisiteError, match="mount tmpfs on /nowhere") as why:
            NamespaceGrader(NamespaceTable(use="namespace")).check([task.instance])
    finally:
        repository_view.cache_clear()
    assert 'use = "docker"' in why.value.hint


def test_copy_gives_the_same_verdicts(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grading on a machine that forbids overlays in user namespaces."""
    monkeypatch.setattr(namespace_grader, "repository_view", lambda: "copy")
    jobs = [task.job(tiny.GOLD, name="gold"), task.job(tiny.WRONG, name="wrong")]
    statuses = [outcome.status for outcome in grade(*jobs)]
    assert statuses == [Status.RESOLVED, Status.UNRESOLVED]


def test_processes_and_files_are_limited(task_running: Running) -> None:
    shown = output_of(task_running("ulimit -u; ulimit -c; ulimit -f"))
    limits = shown.split("+ ulimit -f\n")[0] + shown.split("+ ulimit -f\n")[1][:10]
    assert "+ ulimit -u\n4096\n+ ulimit -c\n0\n" in limits
    assert "unlimited" not in limits


@pytest.mark.parametrize("cgroups", [True, False])
def test_a_patch_that_exhausts_memory_gives_no_label(
    task: Task, monkeypatch: pytest.MonkeyPatch, cgroups: bool
) -> None:
    if not cgroups:
        monkeypatch.setattr(namespace_grader, "cgroup_parents", lambda: {})
    elif not cgroup_parents():
        pytest.skip("this user may make no cgroups")
    body = "x = bytearray(2 << 30)\nx[::4096] = b'x' * len(x[::4096])\n"
    grader = NamespaceGrader(
        NamespaceTable(use="namespace", memory="64m", retries=0, timeout=30)
    )
    ((_, outcome),) = grader.grade([task.job(tiny.diff("calc.py", tiny.CALC, body))])
    grader.close()
    assert outcome.status is Status.OOM


def test_the_recipe_can_allow_the_network_of_the_host(
    task_running: Running,
) -> None:
    job = task_running("cat /proc/net/dev").job(tiny.GOLD)
    grader = NamespaceGrader(NamespaceTable(use="namespace", network=True))
    list(grader.grade([job]))
    grader.close()
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        assert line.split(":")[0] in log_of(job)


def test_the_environment_covers_everything_a_run_depends_on(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def facts(task: Task, **settings: object) -> dict[str, object]:
        table = {"use": "namespace", **settings}
        grader = NamespaceGrader(NamespaceTable.model_validate(table))
        try:
            return dict(grader.environment(task.instance))
        finally:
            grader.close()

    before = facts(task)
    assert facts(task) == before
    assert facts(make_task(tmp_path / "again")) == before
    for change in ({"memory": "1g"}, {"network": True}, {"pids": 7}, {"disk": "1g"}):
        assert facts(task, **change) != before, change
    assert facts(task, workers=7, retries=3) == before
    other = make_task(tmp_path / "other")
    Path(other.instance.snapshot, "calc.py").write_text("other")
    instance = dataclasses.replace(
        other.instance, base_commit=tiny.base_commit(Path(other.instance.snapshot))
    )
    shutil.rmtree(Path(other.instance.snapshot, ".git"))
    assert facts(Task(instance, tmp_path)) != before
    monkeypatch.setattr(namespace_grader.sys, "version", "4.0")
    namespace_grader.host_programs.cache_clear()
    try:
        assert facts(task) != before
    finally:
        namespace_grader.host_programs.cache_clear()
