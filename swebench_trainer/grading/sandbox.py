"""What a kind of sandbox offers, what a run in one leaves, and the cache of runs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from swebench_trainer.contracts import GradeJob
from swebench_trainer.grading.log import CappedLog
from swebench_trainer.store.jsonl import damaged, write_json
from swebench_trainer.types import Instance

KILLED = 137
"""Exit code of a process that got SIGKILL; only the kernel sends it to a test run."""

EXECUTION = "execution.json"
"""Name of the file beside the logs that holds the `Execution`."""

Files = Mapping[str, bytes]
"""What a sandbox is given: path from its root → content."""


@dataclass(frozen=True)
class Ended:
    """How a command in a sandbox ended.

    Attributes:
        code: Exit code; `None` when the command was killed.
        timed_out: The deadline ended it.
        oom: The kernel ended it, or something that it started, for want of memory;
            `None` where memory is limited in a way that only the output tells of.
    """

    code: int | None = None
    timed_out: bool = False
    oom: bool | None = False


@dataclass(frozen=True)
class Evidence:
    """What is seen in a sandbox when everything in it has been killed.

    Attributes:
        changed: Absolute paths of the files outside the repository that are new,
            changed or gone, without those that the sandbox was given.
        script_intact: Whether the eval script is still the one that was put there.
        script_code: Exit code of the eval script; a signal's is below 0 or above 128.
    """

    changed: tuple[str, ...] = ()
    script_intact: bool = True
    script_code: int = 0


@dataclass(frozen=True)
class Execution:
    """What a run leaves beside its logs; together they give the verdict, any time.

    Attributes:
        apply_code: Exit code of the apply script; `None` when it did not end.
        timed_out: The deadline ended the run.
        oom: The kernel ended it for want of memory.
        fault: What was wrong with the machine; empty when nothing was.
        tree: The files that the patch left, as git names them; empty if unknown.
        evidence: Looked for only when the tests passed.
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
    """Writes what a run left beside its logs."""
    write_json(log_dir / EXECUTION, dataclasses.asdict(execution), sync=False)


def read_execution(log_dir: Path) -> Execution | None:
    """Read the run recorded beside its logs, or `None` if none is recorded.

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
    """A fresh machine for one candidate, with its files in place."""

    def apply(self, log: CappedLog) -> Ended:
        """Runs `/tmp/apply.sh` in the repository, for at most `APPLY_SECONDS`."""

    def test(self, log: CappedLog, timeout: float) -> Ended:
        """Runs `/eval.sh` until its end or the deadline; both streams in order."""

    def inspect(self) -> Evidence:
        """Kills everything in the sandbox and looks at what is left."""


class Engine(Protocol):
    """Makes sandboxes of one kind. What fails for the machine's sake raises."""

    def environment(self, instance: Instance) -> Mapping[str, Any]:
        """What decides a run beside the files it is given: image, limits, network."""

    def open(self, job: GradeJob, files: Files) -> AbstractContextManager[Sandbox]:
        """A sandbox with the files in place, gone when the context ends."""


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
