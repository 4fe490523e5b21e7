"""Signs in the state of a sandbox that a pass is not genuine."""

from __future__ import annotations

import re

from swebench_trainer.contracts import GoldRun
from swebench_trainer.grading.sandbox import Evidence

SCRATCH = re.compile(
    r"/(tmp|var/tmp|dev/shm|run)/|/(root|home/[^/]+)/(\.cache/|\.gitconfig$)"
)
"""Directories where tests may write freely."""

PROGRAMS = re.compile(
    r"(.*/)?s?bin/.*|/(usr/)?(local/)?lib(exec|32|64|x32)?/.*"
    r"|.*/((site|user)customize|conftest)\.py|.*\.pth|.*/lib/python[\d.]+/[^/]+\.py"
    r"|.*/(site|dist)-packages/(_pytest|pytest|pluggy|py|nose|tox|coverage)(/.*|\.py)"
    r"|/etc/.*|/eval\.sh|.*/\.(bash|profile|zsh|pytest|pdb|python)\w*"
)
"""Programs, libraries, and files that they load before tests run."""

INSTALLED = re.compile(
    r".*/(site|dist)-packages/([^/]+\.(dist|egg)-info/.*|__editable__.*"
    r"|[^/]+\.egg-link|easy-install\.pth)|.*/__pycache__/.*\.pyc"
)
"""Files of `pip install -e .`, which most official scripts run."""

TOO_MANY = 10_000
"""Number of changed files at which the list may be cut off."""


def is_script_killed(evidence: Evidence) -> bool:
    """Whether a signal killed the eval script, whatever the log shows."""
    return not 0 <= evidence.script_code <= 128


def is_tampered(evidence: Evidence, gold: GoldRun | None) -> bool:
    """Whether files outside the repository changed without explanation.

    Files that the gold run changed too are explained. Numbers in names may differ,
    because they may be versions or dates. Without a gold run, only `PROGRAMS` count.
    """
    changed = {path for path in evidence.changed if not SCRATCH.match(path)}
    if gold is None:
        return any(map(_is_program, changed)) or len(evidence.changed) >= TOO_MANY
    explained = {_without_numbers(path) for path in gold.changed}
    too_many = len(evidence.changed) >= TOO_MANY > len(gold.changed)
    return too_many or any(_without_numbers(path) not in explained for path in changed)


def _is_program(path: str) -> bool:
    return bool(PROGRAMS.fullmatch(path)) and not INSTALLED.fullmatch(path)


def _without_numbers(path: str) -> str:
    return re.sub(r"\d+", "0", path)
