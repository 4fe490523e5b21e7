"""Grading of one candidate in a sandbox of any kind: apply, test, judge, store."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.grading import official
from swebench_trainer.grading.apply import (
    REFUSED,
    applied_tree,
    apply_files,
    is_contained,
)
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.outcome import derive_outcome, outcome_without_patch
from swebench_trainer.grading.pro import without_binary_hunks
from swebench_trainer.grading.sandbox import (
    EXECUTION,
    CommandResult,
    Execution,
    Files,
    NullCache,
    RunCache,
    Sandbox,
    SandboxFactory,
    TestFiles,
    write_execution,
)
from swebench_trainer.patches.hostile_diff import patched_paths
from swebench_trainer.types import Status

SANDBOX_VERSION = 2
"""Part of every cache key. Increase it when sandboxes execute runs differently."""

OUT_OF_MEMORY = re.compile(rb"\bMemoryError\b|Cannot allocate memory|std::bad_alloc")
"""Output of programs that hit a per-process memory limit, which kills nothing."""

CACHEABLE = (Status.RESOLVED, Status.UNRESOLVED, Status.NOT_APPLIED)
"""Statuses of cached runs. Any other status may be the machine's fault."""


MAX_TEST_FILES = 200
"""Maximum number of official test files to compare."""

_CLEANUP = re.compile(r"(git (checkout|restore|reset|clean|stash)|rm) [\w ./@:+=,-]*")
"""Commands without shell syntax that put the repository back in order."""


def without_cleanup(script: str) -> str:
    """An eval script without the commands at its end that restore the test files.

    They follow the last marker, so they cannot change the verdict. Without them, the
    test files can be compared as the tests left them.
    """
    lines = script.splitlines(keepends=True)
    while lines and _CLEANUP.fullmatch(lines[-1].strip()) and any(map(_is_end, lines)):
        lines.pop()
    return "".join(lines)


def _is_end(line: str) -> bool:
    from swebench.harness import constants

    return constants.END_TEST_OUTPUT in line


def clear_logs(log_dir: Path) -> None:
    """Create the directory, and remove the files of an earlier run from it."""
    log_dir.mkdir(parents=True, exist_ok=True)
    for name in (*official.FILES, EXECUTION):
        (log_dir / name).unlink(missing_ok=True)


@dataclass
class CandidateRun:
    """One candidate, from the cache lookup to the stored run.

    The cache stores the run, not the verdict. The verdict is derived from the logs
    each time, so changes to a parser or a list of tests take effect.

    Attributes:
        job: The candidate. Its `log_dir` is created, and cleared of an earlier run.
        factory: Creates the sandbox.
        timeout: Seconds that the tests may take.
        run_cache: Earlier runs.
        same_tree: Whether to reuse the run of another patch that produces the same
            files.
        execution: The record of the run so far.
    """

    job: GradeJob
    factory: SandboxFactory
    timeout: float
    run_cache: RunCache = dataclasses.field(default_factory=NullCache)
    same_tree: bool = True
    execution: Execution = dataclasses.field(default_factory=Execution)
    _tests_began: int | None = None

    def outcome(self) -> Outcome:
        """Run the candidate unless it has no patch, or the cache has an equal run."""
        if (outcome := outcome_without_patch(self.job.candidate)) is not None:
            return outcome
        self._write_inputs()
        keys = [self._key(self.files)]
        if (outcome := self._cached_outcome(keys[0])) is not None:
            return dataclasses.replace(outcome, answered_by="cache")
        begin = time.monotonic()
        with (
            self.factory.open(self.job, self.files) as sandbox,
            contextlib.ExitStack() as turn,
        ):
            self.execution = Execution(seconds={"start": _since(begin)})
            self._apply(sandbox)
            if self.same_tree and self.execution.tree:
                tree_key = self._key({"tree": self.execution.tree.encode()})
                waited = turn.enter_context(self.run_cache.single_flight(tree_key))
                if (outcome := self._cached_outcome(tree_key)) is not None:
                    self._put(keys)
                    return dataclasses.replace(outcome, answered_by="tree")
                keys.append(tree_key)
                if waited:
                    # The run before stored nothing: it hung, or the machine failed.
                    # Do not make the other threads wait for this run as well.
                    turn.close()
            if self._should_test():
                exit_code = self._test(sandbox)
                self._inspect(sandbox, exit_code)
            return self._store(keys)

    @functools.cached_property
    def files(self) -> Files:
        """The files that the sandbox receives."""
        instance, candidate = self.job.instance, self.job.candidate
        script = without_cleanup(official.test_spec(instance).eval_script)
        files = {"eval.sh": script.encode("utf-8", "surrogateescape")}
        # Pro's evaluation resets the repository first, with or without a patch.
        is_pro = instance.apply_mode == "pro"
        if candidate.is_no_op and not is_pro:
            return files
        patch = without_binary_hunks(candidate.patch) if is_pro else candidate.patch
        return files | apply_files(instance, patch, with_tree=self.same_tree)

    def _write_inputs(self) -> None:
        """Write the patch and the eval script to the empty log directory."""
        files = self.files
        clear_logs(self.job.log_dir)
        for path, name in (
            ("tmp/patch.diff", official.PATCH),
            ("eval.sh", official.EVAL_SCRIPT),
        ):
            if path in files:
                (self.job.log_dir / name).write_bytes(files[path])

    @functools.cached_property
    def _facts(self) -> Mapping[str, Any]:
        """Everything that determines the run, except the patch."""
        instance = self.job.instance
        return {
            "environment": dict(self.factory.environment(instance)),
            "sandbox": SANDBOX_VERSION,
            "workdir": instance.workdir,
            "repeat": self.job.repeat,
            "eval": self.files["eval.sh"],
        }

    def _key(self, patch: Files) -> str:
        """The cache key of a run with this patch, given by its files or its tree."""
        text = json.dumps([self._facts, dict(patch)], sort_keys=True, default=bytes.hex)
        return hashlib.sha256(text.encode()).hexdigest()

    def _cached_outcome(self, key: str) -> Outcome | None:
        """The outcome of a cached run, which becomes this run; `None` for none."""
        execution = self.run_cache.get(key, self.job.log_dir)
        if execution is None:
            return None
        if execution.seconds.get("test", 0) <= self.timeout:
            outcome = derive_outcome(self.job, self.timeout, execution)
            # Sandboxes are inspected only after a pass. A run that did not pass then
            # but passes by today's rules lacks its evidence.
            inspected = outcome.status is not Status.RESOLVED or execution.evidence
            if inspected and _is_cacheable(outcome):
                self.execution = execution
                write_execution(execution, self.job.log_dir)
                return outcome
        for name in (official.TEST_LOG, official.REPORT):
            (self.job.log_dir / name).unlink(missing_ok=True)
        return None

    def _apply(self, sandbox: Sandbox) -> None:
        """Apply the patch, if there is one."""
        if "tmp/apply.sh" not in self.files:
            return
        result = self._run_phase("apply", official.APPLY_LOG, sandbox.apply)
        log = self.job.log_dir / official.APPLY_LOG
        tree = ""
        if result.code == 0:
            tree = applied_tree(log.read_text(encoding="utf-8", errors="replace"))
        self._record(apply_code=result.code, tree=tree)

    def _should_test(self) -> bool:
        """Whether to run the tests; SWE-bench Pro runs them for refused patches too."""
        execution = self.execution
        if execution.fault or execution.timed_out or execution.oom:
            return False
        refused = REFUSED if self.job.instance.apply_mode == "pro" else 0
        return execution.apply_code in (None, 0, refused)

    def _test(self, sandbox: Sandbox) -> int:
        """Run the eval script and return its exit code; 0 if it was killed."""
        run = functools.partial(sandbox.test, timeout=self.timeout)
        result = self._run_phase("test", official.TEST_LOG, run)
        log = self.job.log_dir / official.TEST_LOG
        if result.timed_out:  # the harness's own words
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\n\nTimeout error: {self.timeout:g} seconds exceeded.")
        if result.oom is None:
            self._record(oom=bool(OUT_OF_MEMORY.search(log.read_bytes())))
        return result.code or 0

    def _run_phase(
        self, phase: str, log_name: str, run: Callable[[CappedLog], CommandResult]
    ) -> CommandResult:
        """Run a script in the sandbox, and record how it ended."""
        begin = time.monotonic()
        with CappedLog(self.job.log_dir / log_name) as log:
            result = run(log)
        self._tests_began = log.started
        self._record(
            timed_out=result.timed_out,
            oom=bool(result.oom),
            fault=f"the sandbox died during the {phase} phase" if result.died else "",
            seconds=self.execution.seconds | {phase: _since(begin)},
        )
        return result

    def _record(self, **changes: Any) -> None:
        self.execution = dataclasses.replace(self.execution, **changes)

    def _inspect(self, sandbox: Sandbox, exit_code: int) -> None:
        """Collect evidence from the sandbox if the tests passed."""
        if self.execution.fault or self.execution.timed_out:
            return
        job, log = self.job, self.job.log_dir / official.TEST_LOG
        if official.judge(job.instance, job.candidate.patch, log)["resolved"]:
            evidence = sandbox.inspect(self._test_files())
            evidence = dataclasses.replace(evidence, script_code=exit_code)
            self._record(evidence=evidence)

    def _test_files(self) -> TestFiles:
        """The official test files that the sandbox should look at."""
        instance = self.job.instance
        paths = sorted(filter(is_contained, set(patched_paths(instance.test_patch))))
        # Scripts of SWE-bench Pro print the first marker after the tests.
        since = None if instance.apply_mode == "pro" else self._tests_began
        return TestFiles(paths[:MAX_TEST_FILES], since)

    def _store(self, keys: Sequence[str]) -> Outcome:
        """Write the record, derive the outcome, and cache the run if possible."""
        write_execution(self.execution, self.job.log_dir)
        outcome = derive_outcome(self.job, self.timeout, self.execution)
        if _is_cacheable(outcome):
            self._put(keys)
        return dataclasses.replace(outcome, seconds=self.execution.seconds)

    def _put(self, keys: Sequence[str]) -> None:
        job = self.job
        name = job.instance.instance_id
        self.run_cache.put(keys, self.execution, job.log_dir, name)


def _is_cacheable(outcome: Outcome) -> bool:
    """Whether another run on this machine would end the same way."""
    return outcome.status in CACHEABLE and not outcome.report.get(
        "infra_failure_reason"
    )


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 3)
