"""Faults of machines, images and patches; see docs/threats-and-faults.md."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny
from docker.errors import APIError
from extended import EXTENDED
from registry import Registry
from tiny import Task, make_task

from swebench_trainer.contracts import GoldRun, GradeJob, Outcome
from swebench_trainer.grading.cache import SqliteRunCache
from swebench_trainer.grading.docker import grader as grader_module, images
from swebench_trainer.grading.docker.containers import LABEL
from swebench_trainer.grading.docker.grader import (
    DockerGrader,
    DockerTable,
    warn_of_emulation,
)
from swebench_trainer.grading.ledger import Ledger
from swebench_trainer.grading.official import NOOP, TEST_LOG
from swebench_trainer.grading.sandbox import read_execution
from swebench_trainer.grading.stock import StockGrader
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import Candidate, Status

if TYPE_CHECKING:
    from conftest import PrivateDaemon
    from docker import DockerClient

pytestmark = pytest.mark.docker

UNITTEST = "python3 -m unittest -v test_calc"


@pytest.fixture
def task(tmp_path: Path, tiny_image: str) -> Task:
    return make_task(tmp_path)


@pytest.fixture
def make(tmp_path: Path, tiny_image: str) -> Callable[[str], Task]:
    """Creates the task with another test command."""
    return lambda command: make_task(tmp_path / "task", test_command=command)


def docker_grader(runs: Path | None = None, **settings: object) -> DockerGrader:
    """A grader; with `runs`, it caches runs there."""
    values = {"use": "docker", "retries": 0, "workers": 1, **settings}
    run_cache = SqliteRunCache(runs) if runs else None
    return DockerGrader(DockerTable.model_validate(values), run_cache)


def grade(grader: DockerGrader | StockGrader, *jobs: GradeJob) -> dict[str, Outcome]:
    try:
        return {job.log_dir.name: outcome for job, outcome in grader.grade(jobs)}
    finally:
        grader.close()


def grade_one(job: GradeJob, **settings: object) -> Outcome:
    return grade(docker_grader(**settings), job)[job.log_dir.name]


def containers(client: DockerClient, owner: str) -> list[str]:
    """Ids of the containers of one grader."""
    filters = {"label": f"{LABEL}={owner}"}
    return [found["Id"] for found in client.api.containers(all=True, filters=filters)]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def log_of(job: GradeJob) -> str:
    path = job.log_dir / TEST_LOG
    return path.read_text() if path.exists() else ""


# Deadlines.


def test_a_test_that_ignores_the_deadline_is_killed(
    task: Task, docker_client: DockerClient
) -> None:
    threads = threading.active_count()
    job = task.job(tiny.HANGS)
    grader = docker_grader(timeout=2)
    outcome = grade(grader, job)["job"]
    assert outcome.status is Status.TIMEOUT
    assert outcome.seconds and outcome.seconds["test"] < 2 + 5
    assert not outcome.explained
    assert log_of(job).endswith("\n\nTimeout error: 2 seconds exceeded.")
    assert "Start Test Output" in log_of(job)
    assert containers(docker_client, grader._owner) == []
    assert threading.active_count() == threads


def test_a_patch_that_hangs_twice_is_blamed_for_its_timeout(task: Task) -> None:
    job = dataclasses.replace(task.job(tiny.HANGS), gold=GoldRun(seconds=0.2))
    outcome = grade_one(job, timeout=2, timeout_floor=1)
    assert outcome.status is Status.TIMEOUT
    assert outcome.explained
    assert "a second run; gold needs 0.2" in outcome.reason


# Invalid bytes in output.

BYTES = r"printf 'caf\342 \r50%%\r100%%\r\nnul \000 here\n\r'; " + UNITTEST


@pytest.mark.slow
@pytest.mark.stock
def test_invalid_bytes_in_the_output_are_logged_as_by_the_harness(
    make: Callable[[str], Task],
) -> None:
    task = make(BYTES)
    ours, theirs = task.job(tiny.GOLD, name="ours"), task.job(tiny.GOLD, name="stock")
    outcome = grade_one(ours)
    # The daemon may put them anywhere among the lines of the other stream.
    odd = b"caf\xef\xbf\xbd \r50%\r100%\r\nnul \x00 here\n"
    assert odd in (ours.log_dir / TEST_LOG).read_bytes()
    for _ in range(3):  # a busy daemon sometimes loses output of an exec
        stock = StockGrader(GradeTable(use="stock", retries=0))
        reference = grade(stock, theirs)["stock"]
        if odd in (theirs.log_dir / TEST_LOG).read_bytes():
            break
    else:
        pytest.fail("the harness's log never has the bytes")
    assert outcome.status is reference.status is Status.RESOLVED
    assert outcome.report == reference.report


# Patches that are not UTF-8.

LATIN1 = (
    "diff --git a/name.txt b/name.txt\nnew file mode 100644\n--- /dev/null\n"
    "+++ b/name.txt\n@@ -0,0 +1 @@\n+caf\udce9\n"
)


def test_a_patch_with_invalid_utf8_applies_byte_for_byte(
    make: Callable[[str], Task],
) -> None:
    """The harness crashes on this patch; see test_parity.py."""
    job = make(f"od -c name.txt; {UNITTEST}").job(tiny.GOLD + LATIN1)
    assert grade_one(job).status is Status.RESOLVED
    assert re.search(r"c +a +f +351 +\\n", log_of(job))


# Malformed patches.


@pytest.mark.parametrize(
    ("patch", "status"),
    [
        (tiny.NO_NEWLINE, Status.NOT_APPLIED),
        (tiny.GOLD.replace("\n", "\r\n"), Status.RESOLVED),  # by patch(1)
        ("", Status.NO_PATCH),
        (" \n\t\n", Status.NO_PATCH),
        (tiny.GOLD + "\ud800", Status.MALFORMED),
    ],
    ids=["no newline", "crlf", "empty", "whitespace", "lone surrogate"],
)
def test_malformed_patches_get_a_status(task: Task, patch: str, status: Status) -> None:
    outcome = grade_one(task.job(patch))
    assert outcome.status is status
    assert outcome.reason or status is Status.RESOLVED


# Kinds of patches.

RENAME = """\
diff --git a/calc.py b/lib/calc.py
similarity index 100%
rename from calc.py
rename to lib/calc.py
"""
MODE = "diff --git a/calc.py b/calc.py\nold mode 100644\nnew mode 100755\n"
BINARY = """\
diff --git a/logo.bin b/logo.bin
new file mode 100644
index 0000000000000000000000000000000000000000..9fee52f96ba006e2389e08f9f5ccbafcc43d8ef3
GIT binary patch
literal 6
NcmZQzWcvS)0RROI0s#O3

literal 0
HcmV?d00001

"""
# Its last context line is wrong: only patch(1) accepts it, and leaves calc.py.orig.
FUZZY = (
    "diff --git a/calc.py b/calc.py\n--- a/calc.py\n+++ b/calc.py\n@@ -1,5 +1,5 @@\n"
    " def add(a, b):\n-    return a - b\n+    return a + b\n \n \n def doubled(a):\n"
)
FILES = (
    "git ls-files --stage; git status --porcelain --ignored; "
    "find . -path ./.git -prune -o -type f -exec sha256sum {} + -exec stat -c '%n %a' {} +"
)


@pytest.mark.slow
@pytest.mark.stock
@pytest.mark.timeout(300)
def test_every_kind_of_patch_produces_the_same_files_as_the_harness(
    make: Callable[[str], Task],
) -> None:
    patches = {
        "rename": RENAME,
        "mode": MODE,
        "binary": BINARY,
        "new": tiny.NEW_FILE,
        "partial": PARTIAL,
        "fuzzy": FUZZY,
    }
    task = make(f"({FILES}) | LC_ALL=C sort; true")
    outcomes, left = {}, {}
    for use, grader in (
        ("docker", docker_grader(workers=2)),
        ("stock", StockGrader(GradeTable(use="stock", workers=6, retries=0))),
    ):
        jobs = [task.job(text, name=f"{use}/{name}") for name, text in patches.items()]
        outcomes[use] = grade(grader, *jobs)
        left[use] = {job.log_dir.name: printed(log_of(job)) for job in jobs}
    for name in patches:
        ours, theirs = outcomes["docker"][name], outcomes["stock"][name]
        assert ours.status is theirs.status, name
        assert left["docker"][name] == left["stock"][name], name
    assert "./lib/calc.py 644" in left["docker"]["rename"]
    assert "./calc.py.orig 644" in left["docker"]["fuzzy"]
    assert "./logo.bin 644" in left["docker"]["binary"]
    assert outcomes["docker"]["partial"].status is Status.NOT_APPLIED


def printed(log: str) -> list[str]:
    """The output of the commands without their trace; the harness mixes the two."""
    return sorted(line for line in log.splitlines() if not line.startswith("+"))


# Extra files of apply commands.

PARTIAL = (
    tiny.GOLD + "diff --git a/missing.py b/missing.py\n--- a/missing.py\n"
    "+++ b/missing.py\n@@ -1 +1 @@\n-one\n+two\n"
)


def test_extra_files_of_the_apply_command_change_the_tree_id(task: Task) -> None:
    jobs = [task.job(tiny.GOLD, name="gold"), task.job(FUZZY, name="fuzzy")]
    outcomes = grade(docker_grader(), *jobs)
    assert {o.status for o in outcomes.values()} == {Status.RESOLVED}
    gold, fuzzy = (read_execution(job.log_dir) for job in jobs)
    assert gold and fuzzy
    assert gold.tree and fuzzy.tree
    assert gold.tree != fuzzy.tree


# Registries.


@pytest.fixture
def registry(docker_client: DockerClient) -> Iterator[Registry]:
    with Registry().serving() as registry:
        yield registry
    registry.remove_images(docker_client)


def with_image(job: GradeJob, image: str) -> GradeJob:
    return dataclasses.replace(
        job, instance=dataclasses.replace(job.instance, image=image)
    )


@pytest.mark.parametrize("status", [404, 401, 429])
def test_an_unavailable_image_gives_no_label(
    task: Task, registry: Registry, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(images, "BUSY_SECONDS", 0.5)
    registry.refusals += [status] * 10_000
    jobs = [
        with_image(task.job(tiny.GOLD, name=str(n)), registry.name("a/b"))
        for n in range(3)
    ]
    outcomes = grade(docker_grader(retries=2), *jobs)
    assert {o.status for o in outcomes.values()} == {Status.INFRA_ERROR}
    assert registry.name("a/b") in outcomes["0"].reason
    if status != 429:
        assert registry.asked["a/b manifests"] <= 2  # one attempt for all of them


@pytest.mark.slow
def test_an_image_is_pulled_from_a_rate_limited_registry(
    task: Task,
    registry: Registry,
    saved_tiny_image: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "FIRST_PAUSE", 0.05)
    registry.add_saved("tiny/calc", saved_tiny_image)
    registry.refusals += [429, 429]
    jobs = [
        with_image(task.job(tiny.GOLD, name=str(n)), registry.name("tiny/calc"))
        for n in range(3)
    ]
    outcomes = grade(docker_grader(workers=3), *jobs)
    assert {o.status for o in outcomes.values()} == {Status.RESOLVED}
    assert registry.refusals == []
    assert registry.asked["tiny/calc manifests"] <= 5  # one pull, after two refusals


# Killed containers and exhausted resources; for lost daemons, see test_hosts.py.


def test_a_candidate_whose_container_is_killed_runs_again(
    make: Callable[[str], Task], docker_client: DockerClient
) -> None:
    job = make(f"sleep 3; {UNITTEST}").job(tiny.GOLD)
    grader = docker_grader()

    def kill() -> None:
        wait_for(lambda: apply_is_done(job))
        time.sleep(1)
        (container,) = containers(docker_client, grader._owner)
        docker_client.api.kill(container)

    with ThreadPoolExecutor(1) as killer:
        killed = killer.submit(kill)
        outcome = grade(grader, job)["job"]
    killed.result()
    assert outcome.status is Status.RESOLVED
    assert containers(docker_client, grader._owner) == []


def test_a_candidate_that_always_loses_its_container_is_masked(
    make: Callable[[str], Task],
    docker_client: DockerClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed from outside here, because no patch is known that can do it."""
    monkeypatch.setattr(grader_module, "MAX_LOSSES", 2)
    task = make(f"sleep 1; {UNITTEST}")
    jobs = [task.job(patch, name=name) for name, patch in PATCHES.items()]
    grader, done = docker_grader(), threading.Event()

    def kill() -> None:
        while not done.wait(0.2):
            for container in containers(docker_client, grader._owner):
                with contextlib.suppress(APIError):
                    run = docker_client.api.exec_create(container, GREP)["Id"]
                    docker_client.api.exec_start(run)
                    if docker_client.api.exec_inspect(run)["ExitCode"] == 0:
                        docker_client.api.kill(container)

    with ThreadPoolExecutor(1) as killer:
        killed = killer.submit(kill)
        outcomes = grade(grader, *jobs)
        done.set()
    killed.result()
    assert outcomes["right"].status is Status.RESOLVED
    victim = outcomes["victim"]
    assert (victim.status, victim.explained) == (Status.INFRA_ERROR, True)
    assert "only with this patch" in victim.reason


GREP = ["grep", "-q", "victim", "/tmp/patch.diff"]
PATCHES = {
    "victim": tiny.GOLD + tiny.diff("victim", None, "\n"),
    "right": tiny.GOLD,
}


def apply_is_done(job: GradeJob) -> bool:
    log = job.log_dir / "run_instance.log"
    return log.exists() and "Applied Patch" in log.read_text()


HOG = "python3 -c 'x = bytearray(1 << 30); print(len(x))'"


@pytest.mark.parametrize("command", [HOG, f'sh -c "{HOG}; exit 1"'])
def test_running_out_of_memory_is_oom(
    make: Callable[[str], Task], command: str
) -> None:
    """Even if a test runner hides that its child was killed."""
    job = make(command).job(tiny.GOLD)
    assert grade_one(job, memory="64m").status is Status.OOM


@pytest.mark.slow
def test_a_full_disk_is_an_infrastructure_error(
    make: Callable[[str], Task],
    make_daemon: Callable[..., PrivateDaemon],
    saved_tiny_image: Path,
) -> None:
    daemon = make_daemon(disk="1g")
    daemon.load(saved_tiny_image)
    job = make("head -c 1G /dev/zero > /root/file").job(tiny.GOLD)
    outcome = grade_one(job, hosts=[daemon.url], network=False)
    assert outcome.status is Status.INFRA_ERROR
    assert "disk" in outcome.reason
    assert "No space left on device" in log_of(job)


def test_a_fork_bomb_hits_the_process_limit(make: Callable[[str], Task]) -> None:
    bomb = "python3 -c 'import os\nwhile True: os.fork()'; "
    job = make(bomb + UNITTEST).job(tiny.GOLD)
    grade_one(job, pids=50, timeout=10)
    assert "Resource temporarily unavailable" in log_of(job)


# Concurrent candidates.


def test_concurrent_candidates_of_one_instance_do_not_interact(
    make: Callable[[str], Task],
) -> None:
    """Each prints its name, waits until the other has started, and gets its own verdict."""
    task = make(f"cat who; date +%s%N; sleep 2; date +%s%N; {UNITTEST}")
    jobs = [
        task.job(patch + tiny.diff("who", None, f"{name}\n"), name=name)
        for name, patch in (("right", tiny.GOLD), ("wrong", tiny.WRONG))
    ]
    outcomes = grade(docker_grader(workers=2), *jobs)
    assert outcomes["right"].status is Status.RESOLVED
    assert outcomes["wrong"].status is Status.UNRESOLVED
    times = []
    for job in jobs:
        lines = printed(log_of(job))
        assert {"right", "wrong"} & set(lines) == {job.log_dir.name}
        times.append([int(line) for line in lines if line.isdigit()])
    (begin, end), (other_begin, other_end) = times
    assert max(begin, other_begin) < min(end, other_end)


# Changed patches.


def test_a_changed_patch_is_graded_again(task: Task, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "stage", [task.instance], run_id="run")
    statuses = []
    for patch in (tiny.WRONG, tiny.GOLD, tiny.GOLD):
        candidate = Candidate(task.instance.instance_id, 0, "model", "", patch)
        with contextlib.closing(docker_grader()) as grader:
            (verdict,) = ledger.grade(grader, [candidate], lambda *_: None)
        statuses.append(verdict.status)
    assert statuses == [Status.UNRESOLVED, Status.RESOLVED, Status.RESOLVED]


# Repeated runs and admission.


def test_a_repeated_run_is_not_answered_by_the_first_one(
    make: Callable[[str], Task], tmp_path: Path
) -> None:
    """Runs with different values of `repeat` have different cache keys."""
    job = make(UNITTEST).job(tiny.GOLD, name="0")
    again = dataclasses.replace(job, repeat=1, log_dir=job.log_dir.with_name("1"))
    runs = tmp_path / "runs.sqlite"
    for answer in ("run", "cache"):
        outcomes = grade(docker_grader(runs), job, again)
        assert [outcomes[name].answered_by for name in "01"] == [answer, answer]


@pytest.mark.parametrize(
    ("command", "gold", "noop"),
    [
        (UNITTEST, Status.RESOLVED, Status.UNRESOLVED),
        ("false", Status.UNRESOLVED, Status.UNRESOLVED),
        (
            "echo 'test_add (test_calc.CalcTest.test_add) ... ok'; "
            "echo 'test_double (test_calc.CalcTest.test_double) ... ok'",
            Status.RESOLVED,
            Status.RESOLVED,
        ),
    ],
    ids=["sound", "gold fails", "no-op passes"],
)
def test_gold_and_no_op_get_their_true_statuses(
    make: Callable[[str], Task], command: str, gold: Status, noop: Status
) -> None:
    task = make(command)
    jobs = [
        task.job(tiny.GOLD, name="gold"),
        task.job("", extraction=NOOP, name="no-op"),
    ]
    outcomes = grade(docker_grader(), *jobs)
    assert outcomes["gold"].status is gold
    assert outcomes["no-op"].status is noop


# Moved tags.


def test_a_moved_tag_is_a_different_image_to_the_cache(
    task: Task, tiny_image: str, docker_client: DockerClient, tmp_path: Path
) -> None:
    moving = "swebench-trainer/moving"
    image = docker_client.images.get(tiny_image)
    image.tag(moving)
    job = with_image(task.job(tiny.GOLD), f"{moving}:latest")

    def answered_by() -> str:
        outcome = grade(docker_grader(tmp_path / "runs.sqlite"), job)["job"]
        assert outcome.status is Status.RESOLVED
        return outcome.answered_by

    try:
        assert [answered_by(), answered_by()] == ["run", "cache"]
        container = docker_client.containers.create(tiny_image, "true")
        container.commit(moving, "latest", changes=["ENV MOVED=1"])
        container.remove()
        assert answered_by() == "run"
        image.tag(moving)
        assert answered_by() == "cache"
    finally:
        docker_client.images.remove(f"{moving}:latest", force=True)


# Ctrl-C; for kill -9, see test_graders.py.

INTERRUPTED = """
import signal
import sys
from pathlib import Path
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from tiny import HANGS, make_task
grader = DockerGrader(DockerTable(use="docker", workers=2, retries=0))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
print(grader._owner, flush=True)
task = make_task(Path(sys.argv[1]))
try:
    list(grader.grade([task.job(HANGS, name=name) for name in "abc"]))
finally:
    grader.close()
"""


def test_ctrl_c_leaves_no_container(
    task: Task, tmp_path: Path, docker_client: DockerClient
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, tmp_path / "other"],
        env=os.environ | {"PYTHONPATH": str(Path(tiny.__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        wait_for(lambda: len(containers(docker_client, owner)) >= 2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in stderr
    assert containers(docker_client, owner) == []


# Names.


def test_names_with_shell_and_path_characters_are_graded(
    task: Task, tmp_path: Path
) -> None:
    names = (
        "test_x[a,b,c,d]",
        "test_x[$(touch /tmp/x);`id`|*]",
        "test_x[ two  spaces ]",
        "test_x[[[nested]",
    )
    lines = "\n".join(f"PASSED t.py::{name}" for name in names)
    script = task.instance.eval_script.replace(
        UNITTEST, f"cat <<'END_OF_NAMES'\n{lines}\nEND_OF_NAMES"
    )
    instance = dataclasses.replace(
        task.instance,
        instance_id="instance_NodeBB__NodeBB-" + "0123456789ABCDEF" * 6,
        eval_script=script,
        log_parser="parse_log_pytest_v2",
        FAIL_TO_PASS=tuple(f"t.py::{name}" for name in names[:1]),
        PASS_TO_PASS=(),
    )
    candidate = Candidate(instance.instance_id, 0, "model", "", tiny.GOLD)
    job = GradeJob(instance, candidate, tmp_path / "logs" / instance.instance_id)
    outcome = grade_one(job)
    assert outcome.status is Status.RESOLVED
    assert json.loads((job.log_dir / "report.json").read_text()).keys() == {
        instance.instance_id
    }


# Environments.

BARE = """
import sys
from pathlib import Path
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from tiny import GOLD, make_task
import os, tiny
tiny.base_commit = lambda _: "0" * 40  # git is missing, too
grader = DockerGrader(DockerTable(use="docker", workers=1, retries=0))
job = make_task(Path(sys.argv[1])).job(GOLD)
grader.check([job.instance])
((_, outcome),) = grader.grade([job])
grader.close()
print(outcome.status, outcome.reason)
"""


def test_grading_works_in_an_empty_environment(tmp_path: Path, tiny_image: str) -> None:
    """No HOME, PATH, locale, writable directory, or docker program."""
    kept = ("DOCKER_HOST", "XDG_CACHE_HOME", "COVERAGE_PROCESS_START")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", BARE, tmp_path / "task"],
        cwd="/proc",  # even root cannot write there
        env=environment
        | {
            "LC_ALL": "C",
            "PATH": "/nonexistent",
            "PYTHONPATH": str(Path(tiny.__file__).parent),
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("resolved"), done.stdout + done.stderr


# Platforms.


def test_the_platform_of_an_image_is_part_of_the_cache_key(
    registry: Registry, task: Task
) -> None:
    """Emulation also causes a warning."""
    registry.add("arm", architecture="arm64")
    job = with_image(task.job(tiny.GOLD), registry.name("arm"))
    grader = docker_grader()
    assert list(grader.grade([])) == []
    (host,) = grader._hosts
    environment = grader._factory(host).environment(job.instance)
    grader.close()
    assert environment["platform"] == "linux/arm64"
    with pytest.warns(UserWarning, match="emulated"):
        warn_of_emulation({"a host": "aarch64"})


# Ports.

SERVER = (
    "python3 -c 'import socket, time; s = socket.socket(); "
    's.bind(("0.0.0.0", 6379)); s.listen(); print("listening"); time.sleep(2)\'; '
)


def test_four_candidates_can_listen_on_the_same_port(
    make: Callable[[str], Task],
) -> None:
    task = make(SERVER + UNITTEST)
    jobs = [
        task.job(tiny.GOLD + tiny.diff("who", None, f"{name}\n"), name=name)
        for name in "abcd"
    ]
    outcomes = grade(docker_grader(workers=4), *jobs)
    assert {o.status for o in outcomes.values()} == {Status.RESOLVED}
    assert all("listening" in log_of(job) for job in jobs)


# Kills of everything during many candidates.

GRADING = """
import contextlib, json, sys
from pathlib import Path
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from swebench_trainer.grading.ledger import Ledger
from swebench_trainer.types import Candidate
import tiny
folder, out, host, count = sys.argv[1:]
instance = tiny.make_task(Path(folder)).instance
table = DockerTable(
    use="docker", hosts=[host], network=False, workers=2, dedupe="off", cache=False
)
candidates = [
    Candidate(
        instance.instance_id, n, "model", "",
        [tiny.diff("missing.py", "1\\n", "2\\n"), tiny.WRONG, tiny.GOLD][n % 3]
        + tiny.diff(f"extra_{n}.py", None, f"NUMBER = {n}\\n"),
    )
    for n in range(int(count))
]
with contextlib.closing(DockerGrader(table)) as grader:
    grader.check([instance])
    ledger = Ledger(Path(out), [instance], run_id="run")
    ledger.grade(grader, candidates, lambda *a: print(*a, flush=True))
"""


class Grading:
    """Grading in a separate process."""

    def __init__(self, folder: Path, daemon: PrivateDaemon, count: int) -> None:
        self.out = folder / "out"
        self.verdicts = self.out / "verdicts.jsonl"
        self._folder, self._daemon, self._count = folder, daemon, count
        self._turn = 0
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self._turn += 1
        task = self._folder / f"task-{self._turn}"
        arguments = [task, self.out, self._daemon.url, str(self._count)]
        self._folder.mkdir(exist_ok=True)
        with (self._folder / f"log-{self._turn}").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", GRADING, *arguments],
                env=os.environ | {"PYTHONPATH": str(Path(tiny.__file__).parent)},
                stdout=log,
                stderr=log,
            )

    def wait_until(self, decided: int) -> None:
        def enough() -> bool:
            assert self.process.poll() is None, self.log()
            if not self.verdicts.exists():
                return False
            return self.verdicts.read_bytes().count(b"\n") >= decided

        wait_for(enough, 600)

    def log(self) -> str:
        return (self._folder / f"log-{self._turn}").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> dict[int, tuple[str, bool]]:
        """Wait for the end; return the status and whether a report exists, by sample."""
        assert self.process.wait(900) == 0, self.log()
        rows = map(json.loads, self.verdicts.read_text().splitlines())
        return {row["sample"]: (row["status"], bool(row["report"])) for row in rows}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_candidates_survive_every_kill(
    make_daemon: Callable[..., PrivateDaemon], saved_tiny_image: Path, tmp_path: Path
) -> None:
    """Killing the grader, a container and the daemon does not change the verdicts."""
    count = 201 if EXTENDED else 48
    daemon = make_daemon()
    daemon.load(saved_tiny_image)
    undisturbed = Grading(tmp_path / "undisturbed", daemon, count).end()
    assert Counter(status for status, _ in undisturbed.values()) == dict.fromkeys(
        ("not_applied", "unresolved", "resolved"), count // 3
    )
    grading = Grading(tmp_path / "disturbed", daemon, count)
    try:
        grading.wait_until(decided=count // 5)
        grading.kill()
        grading.process = grading.start()
        grading.wait_until(decided=count * 9 // 20)
        with daemon.client() as client:
            for container in client.api.containers(filters={"label": LABEL}):
                with contextlib.suppress(APIError):  # it has ended already
                    client.api.kill(container["Id"])
        grading.wait_until(decided=count * 13 // 20)
        daemon.kill()
        time.sleep(2)
        daemon.start()
        assert grading.end() == undisturbed
    finally:
        grading.kill()
    with daemon.client() as client:
        assert client.api.containers(all=True) == []
