"""Checkpoints that a killed training can rely on.

The trainer writes a checkpoint as a dozen files, and a kill can leave any of
them half written. A manifest with the digest of each file is written last; a
checkpoint without it, or with another content, does not exist for us. The files
are on the disk before the manifest is, so that a power cut cannot leave a manifest
of files that were never written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from swebench_trainer.store import durable

_MANIFEST = "complete.json"


def seal(checkpoint: Path) -> None:
    """Declares a checkpoint complete, as it is now, and written to the disk."""
    durable.sync(checkpoint)
    durable.sync_name(checkpoint)
    partial = checkpoint / f"{_MANIFEST}.partial"
    partial.write_text(json.dumps(_digests(checkpoint)), encoding="utf-8")
    durable.move(partial, checkpoint / _MANIFEST)


def newest_complete(
    folder: Path, lost: Callable[[str], None] = lambda _: None
) -> Path | None:
    """The newest checkpoint that can be resumed from; newer broken ones are removed.

    Args:
        folder: Directory of `checkpoint-<step>` directories; need not exist.
        lost: Told of each that was removed, in words for the user.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_complete(checkpoint):
            return checkpoint
        damaged = (checkpoint / _MANIFEST).exists()
        lost(f"{checkpoint.name} {'is damaged' if damaged else 'was not complete'}")
        shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path) -> int:
    """Number of the optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def is_complete(checkpoint: Path) -> bool:
    """Whether a directory is as it was when it was sealed."""
    try:
        recorded = json.loads((checkpoint / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(recorded == _digests(checkpoint))


def _digests(checkpoint: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and not path.name.startswith(_MANIFEST):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            digests[path.relative_to(checkpoint).as_posix()] = digest
    return digests
