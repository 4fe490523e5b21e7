"""How one candidate is graded, whatever the sandbox: apply, test, judge, remember."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.grading.apply import (
    APPLY_SECONDS,
    NAMED_PATHS,
    NO_GIT,
    REFUSED,
    applied_tree,
    apply_script,
    is_contained,
    named_paths,
    patch_bytes,
)
from swebench_trainer.grading.log import CappedLog
from swebench_trainer.grading.official import (
    APPLY_LOG,
    DISK_FULL,
    EVAL_SCRIPT,
    PATCH,
    REPORT,
    TEST_LOG,
    judge,
    status_of,
    test_spec,
)
from swebench_trainer.grading.pro import without_binary_hunks
from swebench_trainer.grading.sandbox import (
    EXECUTION,
    KILLED,
    Engine,
    Execution,
    Files,
    NullCache,
    RunCache,
    Sandbox,
    write_execution,
)
from swebench_trainer.grading.trust.flags import REFUSED_PATCH, trust_flags
from swebench_trainer.patches.hostile_diff import patched_paths
from swebench_trainer.types import Candidate, Status

SANDBOX_VERSION = 1
"""Part of every key: a sandbox that runs things otherwise is another number."""

NO_MEMORY = re.compile(rb"\bMemoryError\b|Cannot allocate memory|std::bad_alloc")
"""What programs say when a limit of the process, not the kernel, keeps memory from them."""

KEPT = (Status.RESOLVED, Status.UNRESOLVED, Status.NOT_APPLIED)
"""What is remembered; the rest may be the machine's doing."""


def grade_in(
    job: GradeJob,
    engine: Engine,
    timeout: float,
    *,
    run_cache: RunCache | None = None,
    same_tree: bool = True,
) -> Outcome:
    """Grades one job in a sandbox, unless the run cache has an equal run.

    What is remembered is the run, not the verdict: that is derived from the logs
    each time, so no change of a parser or of a list of tests can leave a stale one.

    Args:
        job: The candidate; its `log_dir` is made and emptied of an earlier run.
        engine: Makes the sandbox.
        timeout: Seconds that the tests may take.
        run_cache: Earlier runs; `None` for none.
        same_tree: Whether the run of another patch that leaves the same files counts.
    """
    if (outcome := without_patch(job.candidate)) is not None:
        return outcome
    run_cache = run_cache or NullCache()
    files = _files(job, tree=same_tree)
    clear_logs(job.log_dir)
    for path, name in (("tmp/patch.diff", PATCH), ("eval.sh", EVAL_SCRIPT)):
        if path in files:
            (job.log_dir / name).write_bytes(files[path])
    facts = {
        "environment": dict(engine.environment(job.instance)),
        "sandbox": SANDBOX_VERSION,
        "workdir": job.instance.workdir,
        "repeat": job.repeat,
        "eval": files["eval.sh"],
    }
    by_patch = _key(facts, files)
    if recalled := _recalled(job, timeout, run_cache, by_patch):
        return dataclasses.replace(recalled[0], answered_by="cache")
    begin = time.monotonic()
    keys = [by_patch]
    with engine.open(job, files) as sandbox, contextlib.ExitStack() as turn:
        execution = Execution(seconds={"start": _since(begin)})
        if "tmp/apply.sh" in files:
            execution = _apply(job, sandbox, execution)
        if same_tree and execution.tree:
            by_tree = _key(facts, {"tree": execution.tree.encode()})
            waited = turn.enter_context(run_cache.single_flight(by_tree))
            if recalled := _recalled(job, timeout, run_cache, by_tree):
                outcome, earlier = recalled
                about = job.instance.instance_id
                run_cache.put(keys, earlier, job.log_dir, about)
                return dataclasses.replace(outcome, answered_by="tree")
            keys.append(by_tree)
            if waited:
                # That run left nothing: it hung, or the machine failed. The others
                # that wait need not wait for this one too.
                turn.close()
        return _finish(job, sandbox, timeout, execution, run_cache, keys)


def clear_logs(log_dir: Path) -> None:
    """Makes the directory, without what an earlier run has left in it."""
    log_dir.mkdir(parents=True, exist_ok=True)
    for name in (PATCH, EVAL_SCRIPT, APPLY_LOG, TEST_LOG, REPORT, EXECUTION):
        (log_dir / name).unlink(missing_ok=True)


def without_patch(candidate: Candidate) -> Outcome | None:
    """The outcome of a candidate that has no patch, which needs no sandbox."""
    if candidate.is_no_op:
        return None
    if not candidate.patch.strip():
        return Outcome(Status.NO_PATCH, {}, reason="the patch is empty")
    if patch_bytes(candidate.patch) is None:
        return Outcome(Status.MALFORMED, {}, reason="the patch is not encodable text")
    return None


def conclude(job: GradeJob, timeout: float, execution: Execution) -> Outcome:
    """Derives the outcome of a run from what it left and the logs in `log_dir`."""
    if (outcome := _without_report(job, timeout, execution)) is not None:
        return outcome
    log = job.log_dir / TEST_LOG
    report = judge(job.instance, job.candidate.patch, log)
    text = log.read_text(encoding="utf-8", errors="replace")
    status, reason = status_of(report, text)
    if status is not Status.RESOLVED and (execution.oom or _was_killed(text)):
        status, reason = Status.OOM, "the kernel killed the tests (out of memory)"
    elif status is Status.UNRESOLVED and _was_refused(job, execution):
        status, reason = Status.NOT_APPLIED, _apply_reason_in(job.log_dir)
    flags: tuple[str, ...] = ()
    if status is Status.RESOLVED:
        flags = trust_flags(job, text, execution.evidence)
        if _was_refused(job, execution):
            flags = tuple(sorted({*flags, REFUSED_PATCH}))
    return Outcome(status, report, flags, reason)


def apply_reason(log: str) -> str:
    """The first complaint of the apply commands."""
    complaints = (line for line in log.splitlines() if line.startswith("error:"))
    return next(complaints, "no apply command accepts the patch")


def _files(job: GradeJob, *, tree: bool) -> dict[str, bytes]:
    """What the sandbox is given; `tree` asks for the tree that the patch leaves."""
    script = test_spec(job.instance).eval_script
    files = {"eval.sh": script.encode("utf-8", "surrogateescape")}
    patch = job.candidate.patch
    pro = job.instance.apply_mode == "pro"
    if pro:
        patch = without_binary_hunks(patch)
    # Pro's evaluation resets the repository first, whether there is a patch or not.
    wanted = pro or not job.candidate.is_no_op
    content = patch_bytes(patch) if wanted else None
    if content is not None:
        files["tmp/patch.diff"] = content
        files["tmp/apply.sh"] = apply_script(job.instance).encode()
        paths = set(patched_paths(patch))
        # Without this file the script does not say which tree it has left.
        if tree and all(map(is_contained, paths)):
            files[NAMED_PATHS.removeprefix("/")] = named_paths(paths)
    return files


def _key(facts: Mapping[str, Any], files: Files) -> str:
    """Stands for all that decides a run."""
    text = json.dumps([facts, dict(files)], sort_keys=True, default=bytes.hex)
    return hashlib.sha256(text.encode()).hexdigest()


def _recalled(
    job: GradeJob, timeout: float, run_cache: RunCache, key: str
) -> tuple[Outcome, Execution] | None:
    """A remembered run and its outcome, if it can stand for one that is made now."""
    execution = run_cache.get(key, job.log_dir)
    if execution is None:
        return None
    if execution.seconds.get("test", 0) <= timeout:
        outcome = conclude(job, timeout, execution)
        # If it did not pass when it ran, nobody has looked into its sandbox.
        looked_at = outcome.status is not Status.RESOLVED or execution.evidence
        if looked_at and _is_lasting(outcome):
            write_execution(execution, job.log_dir)
            return outcome, execution
    for name in (TEST_LOG, REPORT):
        (job.log_dir / name).unlink(missing_ok=True)
    return None


def _finish(
    job: GradeJob,
    sandbox: Sandbox,
    timeout: float,
    execution: Execution,
    run_cache: RunCache,
    keys: Sequence[str],
) -> Outcome:
    """Runs the tests, unless the patch has failed already, and remembers the run."""
    if _goes_on(job, execution):
        execution = _test(job, sandbox, timeout, execution)
    write_execution(execution, job.log_dir)
    outcome = conclude(job, timeout, execution)
    if _is_lasting(outcome):
        run_cache.put(keys, execution, job.log_dir, job.instance.instance_id)
    return dataclasses.replace(outcome, seconds=execution.seconds)


def _is_lasting(outcome: Outcome) -> bool:
    """Whether another run on this machine would end the same way."""
    return outcome.status in KEPT and not outcome.report.get("infra_failure_reason")


def _apply(job: GradeJob, sandbox: Sandbox, execution: Execution) -> Execution:
    begin = time.monotonic()
    with CappedLog(job.log_dir / APPLY_LOG) as log:
        ended = sandbox.apply(log)
    tree = ""
    if ended.code == 0:
        text = (job.log_dir / APPLY_LOG).read_text(encoding="utf-8", errors="replace")
        tree = applied_tree(text)
    fault = ""
    if ended.code is None and not (ended.timed_out or ended.oom):
        fault = "the sandbox ended while the patch was applied"
    return dataclasses.replace(
        execution,
        apply_code=ended.code,
        timed_out=ended.timed_out,
        oom=bool(ended.oom),
        fault=fault,
        tree=tree,
        seconds=execution.seconds | {"apply": _since(begin)},
    )


def _goes_on(job: GradeJob, execution: Execution) -> bool:
    """Whether the tests are run; SWE-bench Pro runs them whatever became of the patch."""
    if execution.fault or execution.timed_out or execution.oom:
        return False
    refused = REFUSED if job.instance.apply_mode == "pro" else 0
    return execution.apply_code in (None, 0, refused)


def _test(
    job: GradeJob, sandbox: Sandbox, timeout: float, execution: Execution
) -> Execution:
    begin = time.monotonic()
    path = job.log_dir / TEST_LOG
    with CappedLog(path) as log:
        ended = sandbox.test(log, timeout)
    seconds = execution.seconds | {"test": _since(begin)}
    if ended.timed_out:  # as the harness has it
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n\nTimeout error: {timeout:g} seconds exceeded.")
    fault = ""
    if ended.code is None and not (ended.timed_out or ended.oom):
        fault = "the sandbox vanished while the tests ran"
    execution = dataclasses.replace(
        execution,
        timed_out=ended.timed_out,
        oom=_lacks_memory(path) if ended.oom is None else ended.oom,
        fault=fault,
        seconds=seconds,
    )
    if fault or ended.timed_out:
        return execution
    report = judge(job.instance, job.candidate.patch, path)
    if not report["resolved"]:
        return execution
    evidence = dataclasses.replace(sandbox.inspect(), script_code=ended.code or 0)
    return dataclasses.replace(execution, evidence=evidence)


def _lacks_memory(log: Path) -> bool:
    """Whether programs complain that there is no memory."""
    return bool(NO_MEMORY.search(log.read_bytes()))


def _without_report(
    job: GradeJob, timeout: float, execution: Execution
) -> Outcome | None:
    """The outcome of a run that ended before there was a log to judge."""
    if execution.fault:
        return Outcome(Status.INFRA_ERROR, {}, reason=execution.fault)
    if execution.timed_out:
        reason = f"not done after {timeout:g} seconds"
        if not execution.tested:
            reason = f"the patch was not applied after {APPLY_SECONDS:.0f} seconds"
        return Outcome(Status.TIMEOUT, {}, reason=reason)
    if execution.tested:
        return None
    if execution.oom:
        return Outcome(Status.OOM, {}, reason="no memory to apply the patch")
    if execution.apply_code == REFUSED:
        reason = _apply_reason_in(job.log_dir)
        # The names in a patch cannot end a complaint of git.
        full = reason.endswith(f": {DISK_FULL}")
        status = Status.INFRA_ERROR if full else Status.NOT_APPLIED
        return Outcome(status, {}, reason=reason)
    if execution.apply_code == NO_GIT:
        reason = "the sandbox has no git"
    else:
        reason = f"the apply script ended with {execution.apply_code}"
    return Outcome(Status.INFRA_ERROR, {}, reason=reason)


def _was_refused(job: GradeJob, execution: Execution) -> bool:
    """Whether there was a patch and it did not apply; Pro tests it all the same."""
    noop = job.candidate.is_no_op
    return execution.apply_code == REFUSED and not noop


def _apply_reason_in(log_dir: Path) -> str:
    log = (log_dir / APPLY_LOG).read_text(encoding="utf-8", errors="replace")
    return apply_reason(log)


def _was_killed(log: str) -> bool:
    """Whether the test command itself ended by SIGKILL."""
    from swebench.harness.grading import parse_test_exit_code

    return bool(parse_test_exit_code(log) == KILLED)


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 3)
