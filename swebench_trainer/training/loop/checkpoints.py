"""Checkpoints that a killed training can rely on.

The trainer writes a checkpoint as a dozen files, and a kill can leave any of them half
written. So a manifest with the digest of each file is written last. A checkpoint without
it, or with other content, is treated as missing. The files are synced to disk before the
manifest is written, so a power cut cannot leave a manifest of unwritten files.
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
    """Syncs a checkpoint to disk and writes its manifest."""
    durable.sync(checkpoint)
    durable.sync_name(checkpoint)
    partial = checkpoint / f"{_MANIFEST}.partial"
    partial.write_text(json.dumps(_digests(checkpoint)), encoding="utf-8")
    durable.move(partial, checkpoint / _MANIFEST)


def newest_complete(
    folder: Path, lost: Callable[[str], None] = lambda _: None
) -> Path | None:
    """The newest complete checkpoint; newer incomplete ones are removed.

    Args:
        folder: Directory of `checkpoint-<step>` directories; need not exist.
        lost: Called with a message for each removed checkpoint.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_complete(checkpoint):
            return checkpoint
        damaged = (checkpoint / _MANIFEST).exists()
        lost(f"{checkpoint.name} {'is damaged' if damaged else 'was incomplete'}")
        shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path) -> int:
    """Number of the optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def is_complete(checkpoint: Path) -> bool:
    """Whether a directory has the content that was sealed."""
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
