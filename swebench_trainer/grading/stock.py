"""The `stock` grader: the unmodified harness in a separate process.

It is the reference for the other graders. It is slow, because the harness waits fifteen
seconds for each container to stop.
"""

from __future__ import annotations

import functools
import json
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading import official
from swebench_trainer.grading.outcome import apply_error, outcome_without_patch
from swebench_trainer.grading.run_candidate import clear_logs
from swebench_trainer.grading.scheduler import grade_all
from swebench_trainer.grading.trust.flags import trust_flags
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import Instance, Status

MODEL = "candidate"
"""`model_name_or_path` for the harness; ours may not be a valid directory name."""

GRACE_SECONDS = 600
"""Time of the harness besides the tests: a pull, two starts, two stops."""

# `run_instance` can skip the patch, but the command line has no option for it.
RUN_UNPATCHED = """
import json, sys
from swebench.harness.run_evaluation import _docker_client, make_test_spec, run_instance
row, prediction = (json.load(open(path)) for path in ("dataset.jsonl", "predictions.jsonl"))
run_id, timeout = sys.argv[1:]
spec = make_test_spec(row)
run_instance(spec, prediction, _docker_client(), run_id, int(timeout), skip_patch=True)
"""


class StockGrader:
    """The unmodified harness, for comparison."""

    def __init__(self, table: GradeTable) -> None:
        self._table = table

    def check(self, instances: Sequence[Instance]) -> None:
        """Check the `docker` program, which the harness calls, and its daemon.

        Raises:
            PrerequisiteError: One of them is missing, or the harness cannot run one of
                the instances.
        """
        if any(instance.apply_mode == "pro" for instance in instances):
            raise PrerequisiteError(
                "The stock harness cannot run SWE-bench Pro: it runs the images' "
                "entrypoint and expects the repository in /testbed.",
                hint='Grade with [grade] use = "docker".',
            )
        docker = shutil.which("docker")
        done = docker and subprocess.run([docker, "info"], capture_output=True)
        if not done or done.returncode != 0:
            raise PrerequisiteError(
                "The stock harness needs the docker program and a reachable daemon.",
                hint="Install Docker and check that `docker info` works. Task repos that "
                'contain their files need no Docker; use the grader "namespace" for them.',
            )

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """Grade the jobs; see `Grader.grade`."""
        stop = threading.Event()
        return grade_all(
            jobs,
            self._table,
            functools.partial(self._grade, stop),
            stop=stop.set,
        )

    def close(self) -> None:
        """Do nothing: each job has removed its container."""

    def _grade(self, stop: threading.Event, job: GradeJob, timeout: float) -> Outcome:
        if (outcome := outcome_without_patch(job.candidate)) is not None:
            return outcome
        begin = time.monotonic()
        run_id = uuid.uuid4().hex[:12]
        with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as scratch:
            output = _run_harness(job, run_id, timeout, Path(scratch), stop)
            logs = Path(scratch, "logs", "run_evaluation", run_id, MODEL)
            logs /= job.instance.instance_id
            clear_logs(job.log_dir)
            if logs.is_dir():
                shutil.copytree(logs, job.log_dir, dirs_exist_ok=True)
        seconds = {"test": round(time.monotonic() - begin, 3)}
        return _read_outcome(job, output, seconds)


def _run_harness(
    job: GradeJob, run_id: str, timeout: float, cwd: Path, stop: threading.Event
) -> str:
    """Run the harness on one candidate in `cwd` and return its output."""
    prediction = {
        "instance_id": job.instance.instance_id,
        "model_name_or_path": MODEL,
        "model_patch": job.candidate.patch,
    }
    seconds = math.ceil(timeout)  # the harness accepts only whole seconds
    (cwd / "dataset.jsonl").write_text(
        json.dumps(official.harness_row(job.instance)) + "\n"
    )
    (cwd / "predictions.jsonl").write_text(json.dumps(prediction) + "\n")
    if job.candidate.is_no_op:
        arguments = ["-c", RUN_UNPATCHED, run_id, str(seconds)]
    else:
        arguments = ["-m", "swebench.harness.run_evaluation"]
        arguments += ["--dataset_name", "dataset.jsonl", "--run_id", run_id]
        arguments += ["--predictions_path", "predictions.jsonl"]
        arguments += ["--timeout", str(seconds), "--max_workers", "1"]
    with (cwd / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + timeout + GRACE_SECONDS
        while process.poll() is None:
            if stop.wait(0.25) or time.monotonic() > deadline:
                process.kill()
                process.wait()
                _remove_containers(run_id)
    return (cwd / "output.txt").read_text(errors="replace")


def _remove_containers(run_id: str) -> None:
    """Remove the containers of a killed harness."""
    find = ["docker", "ps", "--all", "--quiet", "--filter", f"name={run_id}"]
    left = subprocess.run(find, capture_output=True, text=True).stdout.split()
    if left:
        remove = ["docker", "rm", "--force", "--volumes", *left]
        subprocess.run(remove, capture_output=True)


def _read_outcome(job: GradeJob, output: str, seconds: dict[str, float]) -> Outcome:
    """Read the outcome from the files of the harness."""
    from swebench.harness.constants import APPLY_PATCH_FAIL

    report_file, log_file = (
        job.log_dir / official.REPORT,
        job.log_dir / official.APPLY_LOG,
    )
    if report_file.exists():
        report = json.loads(report_file.read_text())[job.instance.instance_id]
        text = (job.log_dir / official.TEST_LOG).read_text(
            encoding="utf-8", errors="replace"
        )
        status, reason = official.status_of(report, text)
        flags: tuple[str, ...] = ()
        if status is Status.RESOLVED:
            flags = trust_flags(job, text, evidence=None)
        return Outcome(status, report, flags, reason, seconds)
    log = log_file.read_text(errors="replace") if log_file.exists() else output
    if APPLY_PATCH_FAIL in log:
        status, reason = Status.NOT_APPLIED, apply_error(log)
    elif "Test timed out" in log:
        status, reason = Status.TIMEOUT, "the tests timed out"
    else:
        status = Status.INFRA_ERROR
        lines = log.strip().splitlines() or ["the harness printed nothing"]
        errors = [line for line in lines if " - ERROR - " in line]
        reason = errors[0].partition(" - ERROR - ")[2] if errors else lines[-1]
    return Outcome(status, {}, reason=reason, seconds=seconds)
