"""What a kind of sandbox offers, what a run in one leaves, and the cache of runs."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from swebench_trainer.contracts import GradeJob
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.store.jsonl import damaged, write_json
from swebench_trainer.types import Instance

KILLED = 137
"""Exit code of a process killed by SIGKILL. Only the kernel sends it to a test run."""

OOM_KILLS = re.compile(r"^oom_kill [1-9]", re.MULTILINE)
"""In a cgroup's memory events: the kernel has killed a process for lack of memory."""

MAX_PATHS = 10_000
"""Maximum number of changed paths to report; an honest run changes a handful."""

EXECUTION = "execution.json"
"""Name of the file next to the logs that stores the `Execution`."""

MAX_TEST_BYTES = 16 << 20
"""Larger test files are compared by size only."""

SETTLE_TRIES, SETTLE_PAUSE = 5, 0.1
"""How often, and after how many seconds, to look again for processes that are ending."""

Files = Mapping[str, bytes]
"""Contents of the files that a sandbox receives, by path relative to its root."""


@dataclass(frozen=True)
class CommandResult:
    """How a command in a sandbox ended.

    Attributes:
        code: Exit code; `None` when the command was killed.
        timed_out: Whether it was killed at the deadline.
        oom: Whether the kernel killed it, or a process it started, for lack of
            memory; `None` if only the output can show this.
    """

    code: int | None = None
    timed_out: bool = False
    oom: bool | None = False

    @property
    def died(self) -> bool:
        """Whether it was killed for no known reason."""
        return self.code is None and not (self.timed_out or self.oom)


@dataclass(frozen=True)
class TestFiles:
    """The official test files to look at after the tests.

    Attributes:
        paths: Paths in the repository.
        since: When the tests began, in nanoseconds since 1970; `None` if unknown.
    """

    __test__ = False

    paths: Sequence[str] = ()
    since: int | None = None


@dataclass(frozen=True)
class Evidence:
    """State of a sandbox after all its processes have been killed.

    Attributes:
        changed: Absolute paths of new, changed and deleted files outside the
            repository, except the files that the sandbox received.
        script_intact: Whether the eval script is unchanged.
        script_code: Exit code of the eval script; below 0 or above 128 for a signal.
        tests: Digest of each official test file as the tests left it, or a word for what
            is there instead of a file.
        rewritten: Official test files that were written after the tests began; only
            sandboxes on this machine can tell.
        running: Names of processes that still ran after the eval script.
    """

    changed: tuple[str, ...] = ()
    script_intact: bool = True
    script_code: int = 0
    tests: dict[str, str] = field(default_factory=dict)
    rewritten: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


@dataclass(frozen=True)
class Execution:
    """Record of a run. Together with the logs, it determines the verdict.

    Attributes:
        apply_code: Exit code of the apply script; `None` if it did not finish.
        timed_out: Whether the run was killed at a deadline.
        oom: Whether the kernel killed it for lack of memory.
        fault: Description of an infrastructure failure; empty if there was none.
        tree: Git's id of the patched files; empty if unknown.
        evidence: State of the sandbox; collected only if the tests passed.
        seconds: Wall time by phase (`start`, `apply`, `test`).
    """

    apply_code: int | None = None
    timed_out: bool = False
    oom: bool = False
    fault: str = ""
    tree: str = ""
    evidence: Evidence | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def tested(self) -> bool:
        """Whether the eval script was started."""
        return "test" in self.seconds


EXECUTION_ADAPTER = TypeAdapter(Execution)
"""Decodes an `Execution` from JSON; invalid values raise `ValueError`."""


def write_execution(execution: Execution, log_dir: Path) -> None:
    """Write the record of a run next to its logs."""
    write_json(log_dir / EXECUTION, dataclasses.asdict(execution), sync=False)


def read_execution(log_dir: Path) -> Execution | None:
    """Read the run recorded next to its logs; `None` if there is no record.

    Raises:
        StageError: The file is damaged.
    """
    path = log_dir / EXECUTION
    if not path.exists():
        return None
    try:
        return EXECUTION_ADAPTER.validate_json(path.read_bytes())
    except ValidationError as error:
        raise damaged(path, error.errors()[0]["msg"]) from error


class Sandbox(Protocol):
    """An isolated environment for one candidate, with its files in place."""

    def apply(self, log: CappedLog) -> CommandResult:
        """Run `/tmp/apply.sh` in the repository, for at most `APPLY_SECONDS`."""

    def test(self, log: CappedLog, timeout: float) -> CommandResult:
        """Run `/eval.sh` until its end or the deadline; logs both streams in order."""

    def inspect(self, tests: TestFiles) -> Evidence:
        """Kill everything in the sandbox and collect evidence."""


class SandboxFactory(Protocol):
    """Creates sandboxes of one kind. Infrastructure failures raise."""

    def environment(self, instance: Instance) -> Mapping[str, Any]:
        """Everything that determines a run except its files: image, limits, network."""

    def open(self, job: GradeJob, files: Files) -> AbstractContextManager[Sandbox]:
        """Start a sandbox with the files in place; remove it when the context ends."""


class RunCache(Protocol):
    """Stores finished runs under keys that cover everything that determines a run."""

    def get(self, key: str, log_dir: Path) -> Execution | None:
        """Return the run stored under `key` and restore its logs that `log_dir` lacks."""

    def put(
        self, keys: Sequence[str], execution: Execution, log_dir: Path, about: str
    ) -> None:
        """Store a run of the instance `about`, with its logs, under each key."""

    def single_flight(self, key: str) -> AbstractContextManager[bool]:
        """Admit one thread at a time for a key.

        Yields:
            Whether the thread had to wait: then `get` may have an answer now.
        """

    def close(self) -> None:
        """Release files. Called by the owner of the cache."""


class NullCache:
    """A run cache that stores nothing."""

    def get(self, key: str, log_dir: Path) -> Execution | None:
        """Find nothing."""

    def put(
        self, keys: Sequence[str], execution: Execution, log_dir: Path, about: str
    ) -> None:
        """Store nothing."""

    def single_flight(self, key: str) -> AbstractContextManager[bool]:
        """Admit every thread at once."""
        return contextlib.nullcontext(False)

    def close(self) -> None:
        """Do nothing."""
