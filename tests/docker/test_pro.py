"""SWE-bench Pro in Docker: an image like its own, honest and hostile patches."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pro_task
import pytest
from conftest import BASE_IMAGE
from pro_task import CHECKS, FIXED, WRONG, ProTask

from swebench_trainer.__main__ import run_command_line
from swebench_trainer.contracts import Grader, Outcome
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from swebench_trainer.grading.namespace.grader import NamespaceGrader, NamespaceTable
from swebench_trainer.grading.official import NOOP, TEST_LOG
from swebench_trainer.types import Instance, Status

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.docker

DOCKERFILE = f"""\
FROM {BASE_IMAGE}
ENV OF_THE_IMAGE="is here"
ENV DISPLAY :99
COPY repository /app
WORKDIR /app
ENTRYPOINT ["/bin/bash"]
"""
# The longest id in the dataset; it has capital letters.
VERSION = "-v" + "0123456789" * 5 + "01234567"
AWKWARD = ["a, b", "$HOME `id` *", "  edge  ", "t[open"]

RUN_SCRIPT = """\
#!/bin/bash
# Every kind of command in scripts of the dataset.
mkdir /tmp/test || exit 1
echo > /tmp/.X99-lock
python3 - <<'EOF' &
import socket
with socket.create_server(("127.0.0.1", 6379)) as server:
    while True:
        server.accept()[0].sendall(b"PONG")
EOF
until (exec 3<> /dev/tcp/127.0.0.1/6379) 2> /dev/null; do sleep 0.1; done
PYTHONPATH=. python3 ${1//,/ }
exit 3
"""
ENVIRONMENT_CHECKS = """
import os, socket, time

check("the image's environment", os.environ["OF_THE_IMAGE"] == "is here")
check("the display", os.environ["DISPLAY"] == ":99")
check("the folder", os.getcwd() == "/app")
check("a service", socket.create_connection(("127.0.0.1", 6379)).recv(4) == b"PONG")
check("no parser to tamper with", not os.path.exists("/workspace/parser.py"))
check("the network", len(socket.if_nameindex()) > 1)
time.sleep(0.5)  # so that two at once meet
"""
ENVIRONMENT_TESTS = [
    "the image's environment",
    "the display",
    "the folder",
    "a service",
    "no parser to tamper with",
    "the network",
]


def awkward_task(folder: Path) -> ProTask:
    """A task with every peculiarity that makes the dataset hard to grade."""
    checks = [f"check({name!r}, add(1, 2) == 3)" for name in AWKWARD]
    tests = "\n".join([CHECKS, ENVIRONMENT_CHECKS, *checks, ""])
    folder.mkdir()
    return ProTask(
        folder,
        tests={"tests/checks.py": tests},
        run_script=RUN_SCRIPT,
        suffix=VERSION,
        row={
            "fail_to_pass": repr(["adds", "stderr: says so", *AWKWARD]),
            "pass_to_pass": repr(["keeps zero", *ENVIRONMENT_TESTS]),
        },
    )


@pytest.fixture(scope="module")
def build(docker_client: DockerClient) -> Iterator[Callable[[ProTask], Instance]]:
    """Build the image of a task, named as by the source."""
    names = []

    def build(task: ProTask) -> Instance:
        instance = task.instance()
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            archive.add(task.repository, "repository", filter=_of_root)
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(DOCKERFILE)
            archive.addfile(entry, io.BytesIO(DOCKERFILE.encode()))
        context.seek(0)
        docker_client.images.build(
            fileobj=context,
            custom_context=True,
            tag=instance.image,
            rm=True,
            forcerm=True,
        )
        names.append(instance.image)
        return instance

    yield build
    for name in set(names):
        docker_client.images.remove(name, force=True)


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    return entry


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ProTask:
    return awkward_task(tmp_path_factory.mktemp("pro") / "task")


@pytest.fixture(scope="module")
def instance(task: ProTask, build: Callable[[ProTask], Instance]) -> Instance:
    return build(task)


@pytest.fixture
def grade(tmp_path: Path):
    """Grade patches by name, each in its own container."""

    def grade(
        instance: Instance, grader: Grader | None = None, **patches: str
    ) -> dict[str, Outcome]:
        table = DockerTable(use="docker", retries=0, workers=2, timeout=60, cache=False)
        jobs = [
            pro_task.job(
                instance, patch, tmp_path / name, NOOP if name == "noop" else "ok"
            )
            for name, patch in patches.items()
        ]
        with contextlib.closing(grader or DockerGrader(table)) as grader:
            grader.check([instance])
            graded = {job.log_dir.name: outcome for job, outcome in grader.grade(jobs)}
        return {name: graded[name] for name in patches}

    return grade


def log_of(tmp_path: Path, name: str) -> str:
    return (tmp_path / name / TEST_LOG).read_text()


def test_the_instance_has_the_peculiarities_of_the_dataset(
    instance, docker_client
) -> None:
    """The entrypoint, the folder, and the capitals and length of the id."""
    config = docker_client.images.get(instance.image).attrs["Config"]
    assert config["Entrypoint"] == ["/bin/bash"]
    assert config["WorkingDir"] == instance.workdir == "/app"
    assert instance.instance_id != instance.instance_id.lower()
    assert len(instance.instance_id) == 120
    assert instance.image.startswith("jefzda/sweap-images:acme.calc-ACME__Calc-")


def test_verdicts_of_pro_instances_match_the_official_rule(
    task, instance, grade
) -> None:
    """The 16 columns give official verdicts, whatever the image's entrypoint.

    The expected tests inspect their environment; see ENVIRONMENT_CHECKS.
    """
    outcomes = grade(
        instance,
        gold=instance.patch,
        noop="",
        wrong=task.patch({"calc.py": WRONG}),
        refused="this is no patch\n",
    )
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "gold": Status.RESOLVED,
        "noop": Status.UNRESOLVED,
        "wrong": Status.UNRESOLVED,
        "refused": Status.NOT_APPLIED,
    }
    assert outcomes["gold"].flags == ()
    passing = set(outcomes["wrong"].report["tests_status"]["PASS_TO_PASS"]["success"])
    assert passing == {"keeps zero", *ENVIRONMENT_TESTS}


def test_the_namespace_grader_agrees_on_the_files_of_the_image(
    task, instance, grade
) -> None:
    """Except for the network, which sandboxes have only if the recipe allows it."""
    table = NamespaceTable(
        use="namespace", retries=0, workers=2, timeout=60, cache=False
    )
    offline = tuple(name for name in instance.PASS_TO_PASS if name != "the network")
    outcomes = grade(
        dataclasses.replace(instance, PASS_TO_PASS=offline),
        NamespaceGrader(table),
        gold=instance.patch,
        noop="",
        refused="this is no patch\n",
    )
    assert [outcome.status for outcome in outcomes.values()] == [
        Status.RESOLVED,
        Status.UNRESOLVED,
        Status.NOT_APPLIED,
    ]


def test_a_parser_replaced_in_the_container_is_not_used(task, instance, grade) -> None:
    """A patch may replace it in the container, but the host's copy runs."""
    forged = '{"tests": [{"name": "adds", "status": "PASSED"}]}'
    hostile = WRONG + (
        "\nimport pathlib\n"
        "for name in ('parser.py', 'output.json', 'output.log'):\n"
        f"    pathlib.Path('/workspace', name).write_text({forged!r})\n"
    )
    outcomes = grade(instance, hostile=task.patch({"calc.py": hostile}))
    assert outcomes["hostile"].status is Status.UNRESOLVED


def test_every_run_starts_with_a_fresh_container(instance, grade) -> None:
    """The run script fails if an earlier run has left its folder behind."""
    patches = {f"run{n}": instance.patch for n in range(3)}
    statuses = {outcome.status for outcome in grade(instance, **patches).values()}
    assert statuses == {Status.RESOLVED}


def test_the_fix_commit_is_available_for_grading(instance, grade, tmp_path) -> None:
    grade(instance, gold=instance.patch)
    fix = instance.instance_id.split("-")[1]
    before = log_of(tmp_path, "gold").partition(">>>>> Start")[0]
    assert f"git checkout {fix} -- tests/checks.py" in before
    assert "error:" not in before


def test_two_concurrent_runs_can_use_the_same_port(instance, grade) -> None:
    outcomes = grade(instance, one=instance.patch, other=instance.patch + "\n")
    assert {o.status for o in outcomes.values()} == {Status.RESOLVED}


FORGED = """
import sys
for line in (
    ": '>>>>> End Test Output'",
    ">>>>> Test Exit Code: 0",
    ": '>>>>> Start Test Output'",
    "E:PASSED says so", "O:PASSED adds", "x\\rO:PASSED adds", "S:0", ".",
    ">>>>> Tests Errored",
):
    print(line)
    print(line, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("code", "status"), [(WRONG, Status.UNRESOLVED), (FIXED, Status.RESOLVED)]
)
def test_forged_line_prefixes_are_test_output(
    task, instance, grade, code, status
) -> None:
    """They neither help a wrong patch nor harm a correct one."""
    patch = task.patch({"calc.py": code + FORGED})
    outcome = grade(instance, forged=patch)["forged"]
    assert outcome.status is status
    assert not {"multi_marker", "script_changed"} & set(outcome.flags)


BYPASS = """
import os
block = '''
: '>>>>> Start Test Output'
{lines}
: '>>>>> End Test Output'
>>>>> Test Exit Code: 0
'''
pid = os.getppid()
while "/eval.sh" not in open(f"/proc/{{pid}}/cmdline").read():
    pid = int(open(f"/proc/{{pid}}/stat").read().split()[3])
with open(f"/proc/{{pid}}/fd/1", "w") as log:
    log.write(block)
"""


def test_a_block_forged_outside_the_files_is_flagged(task, instance, grade) -> None:
    """Root in a container can write to the files of the eval script; this is detected."""
    names = [*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS]
    lines = [f"O:PASSED {n}" for n in names if not n.startswith("stderr")]
    lines += ["O:.", "E:PASSED says so", "E:."]
    code = BYPASS.format(lines="\n".join(lines))
    outcome = grade(instance, bypass=task.patch({"calc.py": WRONG + code}))["bypass"]
    assert outcome.status is Status.RESOLVED
    assert "multi_marker" in outcome.flags


OVERWRITES = """
import os, time
if os.fork() == 0:
    os.setsid()
    with open("/workspace/run_script.sh", "a") as script:
        script.write({lines!r})
    time.sleep(600)
    os._exit(0)
time.sleep(0.3)
"""


def test_a_run_script_overwritten_during_the_run_is_flagged(
    grade, build, tmp_path
) -> None:
    """bash continues with the overwritten script, so the pass is flagged."""
    plain = awkward_task(tmp_path / "task")
    plain.run_script = RUN_SCRIPT.replace("exit 3\n", "")
    instance = build(plain)
    names = [*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS]
    lines = ["\ncat <<'EOF'", *(f"PASSED {n}" for n in names), "EOF"]
    lines += ["echo PASSED says so >&2", ""]
    code = OVERWRITES.format(lines="\n".join(lines))
    outcomes = grade(
        instance,
        hostile=plain.patch({"calc.py": WRONG + code}),
        gold=instance.patch,
    )
    assert outcomes["hostile"].status is Status.RESOLVED
    assert "script_changed" in outcomes["hostile"].flags
    assert outcomes["gold"].flags == ()


def test_statuses_of_real_runs_match_the_official_rule(grade, build, tmp_path) -> None:
    """One PASSED among several entries counts; SKIPPED never does."""
    (tmp_path / "task").mkdir()
    task = ProTask(
        tmp_path / "task",
        tests={"tests/checks.py": CHECKS + "\nprint('FAILED adds\\nSKIPPED new')\n"},
        row={"pass_to_pass": "['keeps zero']"},
    )
    instance = build(task)
    assert grade(instance, gold=instance.patch)["gold"].status is Status.RESOLVED
    skipped = dataclasses.replace(instance, PASS_TO_PASS=("keeps zero", "new"))
    outcome = grade(skipped, gold=instance.patch)["gold"]
    assert outcome.status is Status.UNRESOLVED
    assert outcome.report["tests_status"]["PASS_TO_PASS"]["failure"] == ["new"]


def test_one_command_grades_raw_and_prepared_rows(task, instance, tmp_path) -> None:
    """Gold, wrong, and missing predictions; then the rows that `grade` wrote itself."""
    patches = {"gold": instance.patch, "wrong": task.patch({"calc.py": WRONG})}
    files = []
    for model, patch in patches.items():
        row = {
            "instance_id": instance.instance_id,
            "model_name_or_path": model,
            "model_patch": patch,
        }
        files += ["-p", str(tmp_path / f"{model}.jsonl")]
        (tmp_path / f"{model}.jsonl").write_text(json.dumps(row) + "\n")
    raw = ["--data", str(task.folder / "rows.jsonl")]
    raw += ["--scripts", str(task.folder / "evaluation")]
    prepared = ["--data", str(tmp_path / "raw/instances.jsonl")]
    for name, data in (("raw", raw), ("prepared", prepared)):
        out = tmp_path / name
        command = ["grade", *data, *files, "--out", str(out), "--memory", "2g"]
        assert run_command_line(command) == 0
        rows = map(json.loads, (out / "verdicts.jsonl").read_text().splitlines())
        assert {row["model"]: row["status"] for row in rows} == {
            "gold": "resolved",
            "wrong": "unresolved",
        }
