"""What is left in a sandbox that makes a pass hard to believe."""

from __future__ import annotations

import re

from swebench_trainer.contracts import GoldRun
from swebench_trainer.grading.sandbox import Evidence

SCRATCH = re.compile(
    r"/(tmp|var/tmp|dev/shm|run)/|/(root|home/[^/]+)/(\.cache/|\.gitconfig$)"
)
"""Where a test may write as it likes."""

PROGRAMS = re.compile(
    r"(.*/)?s?bin/.*|/(usr/)?(local/)?lib(exec|32|64|x32)?/.*"
    r"|.*/((site|user)customize|conftest)\.py|.*\.pth|.*/lib/python[\d.]+/[^/]+\.py"
    r"|.*/(site|dist)-packages/(_pytest|pytest|pluggy|py|nose|tox|coverage)(/.*|\.py)"
    r"|/etc/.*|/eval\.sh|.*/\.(bash|profile|zsh|pytest|pdb|python)\w*"
)
"""Programs, libraries, and what they read before a test has its turn."""

INSTALLED = re.compile(
    r".*/(site|dist)-packages/([^/]+\.(dist|egg)-info/.*|__editable__.*"
    r"|[^/]+\.egg-link|easy-install\.pth)|.*/__pycache__/.*\.pyc"
)
"""What `pip install -e .`, which most official scripts run, leaves beside programs."""

TOO_MANY = 10_000
"""So many changed files may hide others: nobody lists them without end."""


def is_script_killed(evidence: Evidence) -> bool:
    """Whether a signal ended the eval script, whatever the log says of its end."""
    return not 0 <= evidence.script_code <= 128


def is_tampered(evidence: Evidence, gold: GoldRun | None) -> bool:
    """Whether files changed outside the repository that the tests do not explain.

    What the gold run changed too is explained; a number in a name may differ, because
    it may be a version or a date. Without a gold run only `PROGRAMS` are looked at.
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
