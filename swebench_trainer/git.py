"""Run git as a program that asks no questions and runs no one else's code."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from swebench_trainer.errors import PrerequisiteError

_TRANSPORTS = "file:git:http:https:ssh"
"""Transports that cannot run a command named in an address, as `ext::` does."""
_REDIRECTIONS = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
"""Set when a git hook started this process; they would point git to its repository."""
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",  # give up on a stalled server
    "http.lowSpeedTime=60",
)
_OPTIONS = [word for setting in _SETTINGS for word in ("-c", setting)]
_MAX_REASON = 300


class GitError(Exception):
    """A git command failed. The message is one line with the command and the reason."""


def environment(*, online: bool = False) -> dict[str, str]:
    """Return the variables for git with the user's own configuration.

    Args:
        online: Whether git may connect to a server. A command that reads must not: in a
            partial clone it would fetch missing objects, which writes.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in _REDIRECTIONS}
    return inherited | _restrictions(_TRANSPORTS if online else "none")


def isolated_environment(**variables: str) -> dict[str, str]:
    """Return the variables for git without any configuration of the user or system.

    Args:
        variables: More variables.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        **_restrictions("none"),
        **variables,
    }


def _restrictions(protocols: str) -> dict[str, str]:
    return {
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_NO_REPLACE_OBJECTS": "1",  # an id names the commit it is the digest of
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


def git(*arguments: str, online: bool = False, inherit: Sequence[int] = ()) -> str:
    """Run git with the user's configuration and return its stripped output.

    Args:
        arguments: The command, including the repository (`-C`, `--git-dir`).
        online: Whether git may connect to a server.
        inherit: Descriptors of locks that git keeps if this process is killed.

    Raises:
        GitError: The command failed.
        PrerequisiteError: git is not installed.
    """
    output = run_git(*arguments, env=environment(online=online), inherit=inherit)
    return output.decode(errors="replace").strip()


def run_git(
    *arguments: str,
    env: Mapping[str, str],
    stdin: bytes = b"",
    inherit: Sequence[int] = (),
) -> bytes:
    """Run git and return its output.

    Args:
        arguments: The command.
        env: `environment(...)` or `isolated_environment(...)`.
        stdin: The input.
        inherit: Descriptors of locks that git keeps if this process is killed.

    Raises:
        GitError: The command failed.
        PrerequisiteError: git is not installed.
    """
    pipe = subprocess.PIPE
    process = start_git(
        *arguments, env=env, inherit=inherit, stdin=pipe, stdout=pipe, stderr=pipe
    )
    with process:
        try:
            output, errors = process.communicate(stdin)
        except BaseException:  # also Ctrl-C, which git in its own session does not get
            process.kill()
            raise
    if process.returncode:
        raise GitError(f"git {_verb(arguments)} failed: {complaint(errors)}")
    return output


def start_git(
    *arguments: str,
    env: Mapping[str, str],
    inherit: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int | IO[Any] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start git in a session of its own, without a terminal to ask on.

    Raises:
        PrerequisiteError: git is not installed.
    """
    try:
        return subprocess.Popen(
            ["git", *_OPTIONS, *arguments],
            cwd="/",
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=inherit,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise PrerequisiteError(
            "git is not installed.", hint="Install it: apt-get install git"
        ) from error


def complaint(output: bytes) -> str:
    """Return git's error messages in one line, without passwords in addresses."""
    lines = [x.strip() for x in re.split(r"[\r\n]+", output.decode(errors="replace"))]
    errors = [x for x in lines if x.startswith(("fatal:", "error:", "ERROR:"))]
    text = "; ".join(dict.fromkeys(errors or [x for x in lines if x][-1:]))
    return re.sub(r"://[^/\s@]*@", "://", text or "no reason given")[:_MAX_REASON]


def fast_import_path(path: str) -> bytes:
    """Quote a path without control characters for `git fast-import`."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.encode()


def fast_import_file(path: str, mode: str, content: bytes) -> bytes:
    """Return the command of `git fast-import` that adds a file to a commit."""
    name = fast_import_path(path)
    size = len(content)
    return b"M %s inline %s\ndata %d\n%s\n" % (mode.encode(), name, size, content)


def git_dir(repository: Path) -> str:
    """Return the option that selects a repository."""
    return f"--git-dir={repository}"


def _verb(arguments: Sequence[str]) -> str:
    """Return the command's name, which follows options such as `-C`."""
    pairs = zip(("", *arguments), arguments, strict=False)
    names = (w for option, w in pairs if w[0] != "-" and option not in ("-C", "-c"))
    return next(names, "")
