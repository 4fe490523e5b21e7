"""The graders that use Docker, against each other and against the namespace grader."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny
from tiny import Task, make_task

from swebench_trainer.contracts import GradeJob, Grader, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.docker import containers as containers_module, hosts
from swebench_trainer.grading.docker.containers import (
    LABEL,
    MAX_STATE_BYTES,
    Container,
    ContainerLimits,
    start_container,
)
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from swebench_trainer.grading.namespace.grader import NamespaceGrader, NamespaceTable
from swebench_trainer.grading.official import NOOP
from swebench_trainer.grading.running_time import LONGEST_STEP
from swebench_trainer.grading.sandbox import read_execution
from swebench_trainer.grading.stock import StockGrader
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import Status

if TYPE_CHECKING:
    from conftest import Forwarder
    from docker import DockerClient

pytestmark = pytest.mark.docker

CASES = {
    "gold": (tiny.GOLD, Status.RESOLVED),
    "no-op": ("", Status.UNRESOLVED),
    "wrong": (tiny.WRONG, Status.UNRESOLVED),
    "syntax-error": (tiny.SYNTAX_ERROR, Status.UNRESOLVED),
    "malformed": (tiny.MALFORMED, Status.NOT_APPLIED),
    "no-newline": (tiny.NO_NEWLINE, Status.NOT_APPLIED),
    "new-file": (tiny.NEW_FILE, Status.RESOLVED),
    "hangs": (tiny.HANGS, Status.TIMEOUT),
}
HANG_SECONDS = 2
UNITTEST = "python3 -m unittest -v test_calc"


@pytest.fixture
def task(tmp_path: Path, tiny_image: str) -> Task:
    return make_task(tmp_path)


def docker_grader(**settings: object) -> DockerGrader:
    return DockerGrader(
        DockerTable.model_validate({"use": "docker", "retries": 0, **settings})
    )


def grade(grader: Grader, jobs: list[GradeJob]) -> dict[str, Outcome]:
    grader.check([job.instance for job in jobs])
    try:
        return {job.log_dir.name: outcome for job, outcome in grader.grade(jobs)}
    finally:
        grader.close()


def grade_one(grader: Grader, job: GradeJob) -> Outcome:
    return grade(grader, [job])[job.log_dir.name]


def containers(client: DockerClient, owner: str, **filters: str) -> list[str]:
    """Ids of the containers of one grader."""
    filters |= {"label": f"{LABEL}={owner}"}
    return [found["Id"] for found in client.api.containers(all=True, filters=filters)]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def graders(timeout: int) -> dict[str, Grader]:
    table = {"timeout": timeout, "retries": 0}
    namespace = NamespaceTable(use="namespace", workers=2, **table)
    return {
        "docker": docker_grader(timeout=timeout, workers=2),
        "namespace": NamespaceGrader(namespace),
        "stock": StockGrader(GradeTable(use="stock", workers=4, **table)),
    }


@pytest.mark.slow
@pytest.mark.stock
def test_three_graders_agree(
    task: Task,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    uses = ("docker", "namespace", "stock")
    outcomes: dict[str, dict[str, Outcome]] = {use: {} for use in uses}
    logs: dict[str, dict[str, Path]] = {use: {} for use in uses}
    hanging = {"hangs"}
    for timeout, names in ((HANG_SECONDS, hanging), (60, CASES.keys() - hanging)):
        for use, grader in graders(timeout).items():
            jobs = [
                task.job(
                    CASES[name][0],
                    extraction=NOOP if name == "no-op" else "ok",
                    name=f"{use}/{name}",
                )
                for name in sorted(names)
            ]
            outcomes[use] |= grade(grader, jobs)
            logs[use] |= {job.log_dir.name: job.log_dir for job in jobs}
    for name, (_, status) in CASES.items():
        for use in uses:
            outcome = outcomes[use][name]
            assert outcome.status is status, (use, name, outcome)
            assert outcome.report == outcomes["stock"][name].report, (use, name)
            assert outcome.flags == (), (use, name)
            written, reference = (
                path.read_bytes() if path.exists() else None
                for path in (
                    logs[grader][name] / "report.json" for grader in (use, "stock")
                )
            )
            assert written == reference, (use, name)


def test_closing_early_leaves_no_container(
    task: Task, docker_client: DockerClient
) -> None:
    grader = docker_grader(workers=2)
    jobs = [task.job(tiny.HANGS, name="hangs"), task.job(tiny.GOLD, name="gold")]
    outcomes = grader.grade(jobs)
    assert next(outcomes)[0] is jobs[1]
    outcomes.close()
    grader.close()
    assert containers(docker_client, grader._owner) == []


def test_the_recipe_can_disable_the_network(tmp_path: Path, tiny_image: str) -> None:
    task = make_task(tmp_path, test_command="cat /proc/net/route | wc -l")
    job = task.job(tiny.GOLD)
    grade_one(docker_grader(network=False), job)
    assert "\n1\n" in (job.log_dir / "test_output.txt").read_text()


def test_the_recipe_sets_the_limits_of_a_container(
    tmp_path: Path, tiny_image: str
) -> None:
    cgroup = "cat /sys/fs/cgroup/{pids.max,memory.max,cpu.max}"
    older = "cat /sys/fs/cgroup/{pids/pids.max,memory/memory.limit_in_bytes,cpu/cpu.cfs_quota_us}"
    task = make_task(tmp_path, test_command=f"{cgroup} || {older}; df /dev/shm")
    job = task.job(tiny.GOLD)
    grade_one(docker_grader(pids=77, memory="1g", cpus=0.5, shm="3m"), job)
    log = (job.log_dir / "test_output.txt").read_text()
    for limit in ("77", str(1 << 30), "50000", " 3072 "):
        assert limit in log


KILLERS = r"""
rm -f "$(command -v sleep)" "$(command -v tail)" "$(command -v cat)"
for number in $(seq 1 64); do kill -$number 1; done
python3 - <<'END'
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
print("traced", libc.ptrace(16, 1, 0, 0), os.strerror(ctypes.get_errno()))
try:
    open("/proc/1/mem", "wb")
except OSError as error:
    print("memory", error.strerror)
child = os.fork()
if child == 0:
    if os.fork() == 0:
        os._exit(0)  # an orphan
    os._exit(0)
os.waitpid(child, 0)
time.sleep(2.5)
states = [open(f"/proc/{n}/stat").read().split()[2] for n in os.listdir("/proc") if n.isdigit()]
print("zombies", states.count("Z"))
END
ls -a /; grep -E "CapBnd|NoNewPrivs" /proc/self/status
"""
SYS_ADMIN = 1 << 21


def test_a_candidate_cannot_end_its_container(tmp_path: Path, tiny_image: str) -> None:
    task = make_task(tmp_path, test_command=KILLERS + UNITTEST)
    job = task.job(tiny.GOLD)
    outcome = grade_one(docker_grader(), job)
    log = (job.log_dir / "test_output.txt").read_text()
    assert outcome.status is Status.RESOLVED, log
    assert "traced -1 Operation not permitted" in log
    assert "memory Permission denied" in log
    assert "zombies 0" in log
    assert ".swebench-trainer" not in log
    assert (outcome.seconds or {})["test"] > 2


@pytest.mark.parametrize(
    ("capabilities", "has_sys_admin"), [("default", False), ("harness", True)]
)
def test_containers_have_sys_admin_only_if_asked_for(
    tmp_path: Path, tiny_image: str, capabilities: str, has_sys_admin: bool
) -> None:
    command = "grep -E 'CapBnd|NoNewPrivs' /proc/self/status; " + UNITTEST
    job = make_task(tmp_path, test_command=command).job(tiny.GOLD)
    grade_one(docker_grader(capabilities=capabilities), job)
    log = (job.log_dir / "test_output.txt").read_text()
    (bounding,) = re.findall(r"^CapBnd:\s+(\w+)", log, re.MULTILINE)
    (no_new,) = re.findall(r"^NoNewPrivs:\s+(\d)", log, re.MULTILINE)
    assert bool(int(bounding, 16) & SYS_ADMIN) is has_sys_admin
    assert (no_new == "0") is has_sys_admin


def test_a_runtime_that_the_daemon_lacks_is_refused_with_a_way_out(task: Task) -> None:
    with (
        contextlib.closing(docker_grader(runtime="nonesuch")) as grader,
        pytest.raises(
            PrerequisiteError, match="no runtime 'nonesuch', only"
        ) as refused,
    ):
        grader.check([task.instance])
    assert "daemon.json" in refused.value.hint


@pytest.mark.parametrize("runtime", ["", "runc"])
def test_the_runtime_is_passed_to_the_daemon(
    docker_client: DockerClient, tiny_image: str, runtime: str
) -> None:
    info = docker_client.info()
    found = start_container(
        docker_client.api,
        docker_client.images.get(tiny_image).id,
        ContainerLimits("64m", None, 64, "1m", network=False, runtime=runtime),
        owner="tests",
        life=120,
        architecture=info["Architecture"],
    )
    try:
        config = docker_client.api.inspect_container(found._id)["HostConfig"]
        assert config["Runtime"] == (runtime or info["DefaultRuntime"])
    finally:
        found.remove()


def test_containers_are_started_ahead_and_used_once(
    task: Task, docker_client: DockerClient
) -> None:
    jobs = [
        task.job(tiny.GOLD + tiny.diff(f"{n}.py", None, "1\n"), name=str(n))
        for n in range(5)
    ]
    grader = docker_grader(workers=1)
    begin = time.time()
    outcomes = grade(grader, jobs)
    assert {o.status for o in outcomes.values()} == {Status.RESOLVED}
    events = docker_client.events(
        since=int(begin),
        until=int(time.time()) + 1,
        filters={"label": f"{LABEL}={grader._owner}"},
        decode=True,
    )
    alive: set[str] = set()
    most, runs, started = 0, Counter[str](), []
    for event in events:
        container, action = event["id"], event["Action"]
        if action == "start":
            alive.add(container)
            started.append(container)
        elif action == "destroy":
            alive.discard(container)
        elif action.startswith("exec_start"):
            runs[container] += 1
        most = max(most, len(alive))
    assert len(started) == len(jobs)
    assert set(runs.values()) == {2}  # only apply and test
    assert (most, alive) == (2, set())


TROJAN = """\
import os, pathlib
pathlib.Path("/usr/bin/git").write_text("#!/bin/sh\\n")
pathlib.Path("/root/.profile").unlink()
os.symlink("/etc/passwd", "/opt/link")
pathlib.Path("/testbed/inside").touch()
os.makedirs("/opt/a/b"); pathlib.Path("/opt/a/b/c").touch()
"""


def test_changes_outside_the_repository_are_evidence(
    tmp_path: Path, tiny_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from the container's layer, or from the daemon if that is unreadable."""
    task = make_task(tmp_path, test_command="python3 /testbed/trojan.py; " + UNITTEST)
    patch = tiny.GOLD + tiny.diff("trojan.py", None, TROJAN)
    changed = ["/opt/a/b/c", "/opt/link", "/root/.profile", "/usr/bin/git"]
    for way in ("layer", "daemon"):
        if way == "daemon":
            monkeypatch.setattr(containers_module, "_layer", lambda _: None)
        job = task.job(patch, name=way)
        assert grade_one(docker_grader(), job).status is Status.RESOLVED
        execution = read_execution(job.log_dir)
        assert execution and execution.evidence
        found = [p for p in execution.evidence.changed if "__pycache__" not in p]
        assert found == changed, way
        assert execution.evidence.script_intact
        tests = {"test_calc.py": hashlib.sha256(tiny.TEST_BODY.encode()).hexdigest()}
        assert execution.evidence.tests == tests, way


@pytest.mark.parametrize(
    "damage", ["echo >> /eval.sh", "rm /eval.sh", "ln -sf /tmp/copy /eval.sh"]
)
@pytest.mark.parametrize("way", ["layer", "daemon"])
def test_a_changed_eval_script_is_evidence(
    tmp_path: Path,
    tiny_image: str,
    damage: str,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if way == "daemon":
        monkeypatch.setattr(containers_module, "_layer", lambda _: None)
    task = make_task(
        tmp_path, test_command=f"cp /eval.sh /tmp/copy; {damage}; {UNITTEST}"
    )
    job = task.job(tiny.GOLD)
    assert grade_one(docker_grader(), job).status is Status.RESOLVED
    execution = read_execution(job.log_dir)
    assert execution and execution.evidence
    assert not execution.evidence.script_intact


def test_a_missing_image_gives_no_label(task: Task) -> None:
    image = "swebench-trainer/there-is-no-such-image:latest"
    instance = dataclasses.replace(task.instance, image=image)
    job = dataclasses.replace(task.job(tiny.GOLD), instance=instance)
    outcome = grade_one(docker_grader(), job)
    assert outcome.status is Status.INFRA_ERROR
    assert outcome.reason


def test_other_workdirs_and_entrypoints_are_supported(
    tmp_path: Path, tiny_image: str, docker_client: DockerClient
) -> None:
    """As in the images of SWE-bench Pro."""
    container = docker_client.containers.run(
        tiny_image, ["mv", "/testbed", "/app"], working_dir="/", detach=True
    )
    try:
        container.wait()
        changes = ['ENTRYPOINT ["/bin/bash"]', "WORKDIR /app"]
        container.commit("swebench-trainer/tiny-app", "latest", changes=changes)
    finally:
        container.remove(force=True)
    task = make_task(tmp_path)
    instance = dataclasses.replace(
        task.instance,
        image="swebench-trainer/tiny-app:latest",
        workdir="/app",
        eval_script=task.instance.eval_script.replace("/testbed", "/app"),
    )
    job = dataclasses.replace(task.job(tiny.GOLD), instance=instance)
    assert grade_one(docker_grader(), job).status is Status.RESOLVED


def test_check_fails_without_a_daemon(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(PrerequisiteError) as refused:
        docker_grader().check([task.instance])
    assert "docker info" in refused.value.hint
    with pytest.raises(PrerequisiteError):
        StockGrader(GradeTable(use="stock")).check([task.instance])


def test_closing_the_stock_grader_early_leaves_no_container(
    task: Task, docker_client: DockerClient
) -> None:
    grader = StockGrader(GradeTable(use="stock", workers=2, retries=0))
    jobs = [task.job(tiny.HANGS, name="hangs"), task.job("", name="empty")]
    outcomes = grader.grade(jobs)
    assert next(outcomes)[0] is jobs[1]
    mine = {"ancestor": task.instance.image, "status": "running"}
    wait_for(lambda: docker_client.containers.list(filters=mine), 60)
    outcomes.close()
    assert docker_client.containers.list(all=True, filters=mine) == []


@pytest.fixture
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def check_as_another(task: Task) -> None:
    with contextlib.closing(docker_grader()) as grader:
        grader.check([task.instance])


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the SDK's
@pytest.mark.usefixtures("own_claims")
def test_a_dying_daemon_is_an_infrastructure_error(
    task: Task,
    docker_client: DockerClient,
    mortal_daemon: Forwarder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die_amid_the_tests() -> None:
        log = job.log_dir / "run_instance.log"  # the tests start when it ends
        with contextlib.suppress(AssertionError):
            wait_for(lambda: log.exists() and "Applied Patch" in log.read_text())
            time.sleep(0.5)
        mortal_daemon.die()

    job = task.job(tiny.HANGS)
    killer = threading.Thread(target=die_amid_the_tests)
    killer.start()
    with monkeypatch.context() as environment:
        environment.setenv("DOCKER_HOST", mortal_daemon.url)
        grader = docker_grader()
        environment.setattr(hosts, "PATIENCE_SECONDS", 2)
        ((_, outcome),) = grader.grade([job])
    killer.join()
    assert outcome.status is Status.INFRA_ERROR
    grader.close()
    assert len(containers(docker_client, grader._owner)) == 1
    check_as_another(task)
    assert containers(docker_client, grader._owner) == []


TRAINER = """
import sys
from pathlib import Path
from swebench_trainer.grading.docker import grader as module
from tiny import HANGS, make_task
folder, timeout, module.APPLY_SECONDS, module.SLACK_SECONDS = sys.argv[1:]
module.APPLY_SECONDS = float(module.APPLY_SECONDS)
module.SLACK_SECONDS = float(module.SLACK_SECONDS)
table = module.DockerTable(use="docker", timeout=int(timeout), retries=0)
grader = module.DockerGrader(table)
print(grader._owner, flush=True)
list(grader.grade([make_task(Path(folder)).job(HANGS)]))
"""


@contextlib.contextmanager
def trainer(folder: Path, client: DockerClient, *seconds: int) -> Iterator[str]:
    """Another process that is grading a candidate; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, folder, *map(str, seconds)],
        env=os.environ | {"PYTHONPATH": str(Path(tiny.__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        try:
            wait_for(lambda: containers(client, owner, status="running"))
            yield owner
        finally:
            process.kill()


@pytest.mark.usefixtures("own_claims")
def test_check_removes_only_containers_of_killed_trainers(
    task: Task, tmp_path: Path, docker_client: DockerClient
) -> None:
    with trainer(tmp_path / "other", docker_client, 600, 300, 600) as owner:
        check_as_another(task)
        assert len(containers(docker_client, owner, status="running")) == 1
    assert len(containers(docker_client, owner, status="running")) == 1
    check_as_another(task)
    assert containers(docker_client, owner) == []


@pytest.mark.usefixtures("own_claims")
def test_the_container_of_a_killed_trainer_exits_on_its_own(
    task: Task, tmp_path: Path, docker_client: DockerClient
) -> None:
    with trainer(tmp_path / "other", docker_client, 3, 3, 0) as owner:
        pass
    assert len(containers(docker_client, owner, status="running")) == 1
    wait_for(lambda: not containers(docker_client, owner, status="running"), 2 * 6 + 10)
    check_as_another(task)
    assert containers(docker_client, owner) == []


PAUSED = """
import json, sys
from pathlib import Path
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from swebench_trainer.grading.namespace.grader import NamespaceGrader, NamespaceTable
from tiny import GOLD, make_task
use, folder = sys.argv[1:]
task = make_task(Path(folder), test_command="sleep 1; python3 -m unittest -v test_calc")
Grader, Table = {
    "docker": (DockerGrader, DockerTable), "namespace": (NamespaceGrader, NamespaceTable)
}[use]
grader = Grader(Table(use=use, timeout=3, workers=1, retries=0, cache=False))
(outcome,) = (outcome for _, outcome in grader.grade([task.job(GOLD)]))
grader.close()
print(outcome.status)
"""


@pytest.mark.slow
@pytest.mark.parametrize("use", ["docker", "namespace"])
def test_a_paused_trainer_does_not_turn_candidates_into_timeouts(
    tmp_path: Path, tiny_image: str, use: str
) -> None:
    def logs() -> Iterator[Path]:
        return tmp_path.glob("**/test_output.txt")

    process = subprocess.Popen(
        [sys.executable, "-c", PAUSED, use, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(tiny.__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        wait_for(lambda: "sleep 1" in "".join(map(Path.read_text, logs())))
        process.send_signal(signal.SIGSTOP)
        time.sleep(LONGEST_STEP + 1)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=60)
    assert output.strip() == Status.RESOLVED


@pytest.fixture
def container(docker_client: DockerClient, tiny_image: str) -> Iterator[Container]:
    """A container with unreadable layer and cgroup, as on another machine."""
    limits = ContainerLimits(memory="64m", cpus=None, pids=64, shm="1m", network=False)
    image = docker_client.images.get(tiny_image).id
    found = start_container(
        docker_client.api,
        image,
        limits,
        owner="tests",
        life=120,
        architecture=docker_client.info()["Architecture"],
    )
    try:
        found.put({"eval.sh": b"echo", "bin/cat": b"#!/bin/sh\nexec yes\n"})
        yield found
    finally:
        found.remove()


def run_in(container: Container, command: str, folder: Path) -> None:
    with CappedLog(folder / "log") as log:
        container.run(command, "/", 60, log)
    container._layer = None


@pytest.mark.parametrize(
    "command",
    [
        "echo more >> /eval.sh",
        "echo ECHO > /eval.sh",
        "truncate -s 8T /eval.sh",
        "rm /eval.sh",
        "rm /eval.sh; ln -s /etc/hostname /eval.sh",
        "rm /eval.sh; mkdir /eval.sh",
        "rm /eval.sh; mkfifo /eval.sh",
        "rm /eval.sh; mknod /eval.sh c 1 5",
    ],
)
def test_a_script_replaced_by_a_device_is_not_read(
    container: Container, command: str, tmp_path: Path
) -> None:
    run_in(container, "true", tmp_path)
    assert container.holds("eval.sh", b"echo")
    echo = (hashlib.sha256(b"echo").hexdigest(), None)
    assert container.test_file("eval.sh") == echo
    run_in(container, command, tmp_path)
    container.kill()
    assert not container.holds("eval.sh", b"echo")
    assert container.test_file("eval.sh") != echo


def test_endless_memory_events_are_cut_off(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(container, "chmod +x /bin/cat", tmp_path)
    assert 0 < len(container._read_state("cat /proc/meminfo")) <= 2 * MAX_STATE_BYTES
    monkeypatch.setattr(containers_module, "SILENCE_SECONDS", 1.0)
    begin = time.monotonic()
    assert container._read_state("sleep 50") == ""
    assert time.monotonic() - begin < 30
