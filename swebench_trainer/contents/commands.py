"""git as a program: what it may do, and what it said when it could not."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from swebench_trainer.errors import PrerequisiteError

_TRANSPORTS = "file:git:http:https:ssh"
"""Those that run no command of the address's choice, as `ext::` does."""
_ELSEWHERE = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
"""What a hook that started us may have set; git would work in its repository."""
_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    *("-c", "http.lowSpeedLimit=1000"),  # a server that has gone silent
    *("-c", "http.lowSpeedTime=60"),
)
_MOST_TOLD = 300


class GitError(Exception):
    """git could not; the message is one line that says what and why."""


def command(*arguments: str) -> list[str]:
    """A command of git that runs nobody else's programs."""
    return ["git", *_OPTIONS, *arguments]


def environment(*, online: bool = False) -> dict[str, str]:
    """What git is told by variables: to ask nothing, and where it may connect to.

    Args:
        online: Whether it may at all. One that reads must not: from a partial clone it
            would fetch what is missing, and write.
    """
    kept = {k: v for k, v in os.environ.items() if k not in _ELSEWHERE}
    return kept | {
        "GIT_ALLOW_PROTOCOL": _TRANSPORTS if online else "none",
        "GIT_NO_REPLACE_OBJECTS": "1",  # a commit is what its id says
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


def git(*arguments: str, online: bool = False, held: Sequence[int] = ()) -> str:
    """Runs git to its end, away from any terminal that it could ask.

    Args:
        arguments: The command, which says where to work (`-C`, `--git-dir`).
        online: Whether it may connect to somewhere.
        held: Locks that it holds too, so that they outlast us as long as it does.

    Returns:
        What it printed.

    Raises:
        GitError: It failed.
        PrerequisiteError: There is no git.
    """
    try:
        done = subprocess.run(
            command(*arguments),
            cwd="/",
            env=environment(online=online),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=held,
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise no_git() from error
    if done.returncode:
        raise GitError(f"git {_verb(arguments)} failed: {complaint(done.stderr)}")
    return done.stdout.decode(errors="replace").strip()


def no_git() -> PrerequisiteError:
    """The error of a machine without git."""
    return PrerequisiteError("There is no git.", hint="Install it: apt-get install git")


def complaint(output: bytes) -> str:
    """What git complained of, in a line, without the passwords of addresses."""
    lines = [x.strip() for x in re.split(r"[\r\n]+", output.decode(errors="replace"))]
    said = [x for x in lines if x.startswith(("fatal:", "error:", "ERROR:"))]
    told = "; ".join(dict.fromkeys(said or [x for x in lines if x][-1:]))
    return re.sub(r"://[^/\s@]*@", "://", told or "no reason given")[:_MOST_TOLD]


def directory(place: Path) -> str:
    """The option that says in which repository git works."""
    return f"--git-dir={place}"


def _verb(arguments: Sequence[str]) -> str:
    """The command itself, behind the options that say where."""
    words = iter(arguments)
    for word in words:
        if word in ("-C", "-c"):
            next(words)
        elif not word.startswith("-"):
            return word
    return ""
