"""The user's secret, which decides the changed tests that a patch has to fail.

A patch that knew them could fail exactly those. The secret never leaves its file: runs
record the choice, from which it cannot be derived.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_data_path

from swebench_trainer.errors import PrerequisiteError

SIZE = 32
"""Bytes of the secret."""

Ranking = Callable[..., str]
"""Maps names to a text that only the owner of a secret can compute; sorting by it
shuffles reproducibly."""


def ranking() -> Ranking:
    """The order that the user's secret gives to names.

    Raises:
        PrerequisiteError: The secret can be neither read nor created.
    """
    secret = _secret(_path())

    def rank(*names: str) -> str:
        message = json.dumps(names).encode()
        return hmac.new(secret, message, hashlib.sha256).hexdigest()

    return rank


def _path() -> Path:
    path = user_data_path("swebench-trainer")
    if not path.is_absolute():
        raise PrerequisiteError(
            "Counter-runs need a secret in the user's data directory, and the user has "
            "no home directory.",
            hint="Set XDG_DATA_HOME, or set [grade] counter_runs = false.",
        )
    return path / "counter-runs.key"


def _secret(path: Path) -> bytes:
    """Read the secret; create it first if it is missing."""
    try:
        if not path.exists():
            _create(path)
        secret = path.read_bytes()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise PrerequisiteError(
            f"Cannot read or create the secret of counter-runs, {path}: "
            f"{error.strerror}.",
            hint="Make the directory writable, set XDG_DATA_HOME to another one, or set "
            "[grade] counter_runs = false.",
        ) from error
    if len(secret) < SIZE:
        raise PrerequisiteError(
            f"The secret of counter-runs, {path}, is damaged: it has {len(secret)} bytes.",
            hint="Remove the file; a new secret is created.",
        )
    return secret


def _create(path: Path) -> None:
    """Create the file with its content in one step; the first process to do so wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(new)
    finally:
        new.unlink(missing_ok=True)
