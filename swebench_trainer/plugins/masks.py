"""Keeps keys out of what is told: strangers' errors may repeat one."""

from __future__ import annotations

import os

NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""What the names of environment variables end with that hold secrets."""
SHORTEST = 8
"""Characters of the shortest value that is taken for a secret."""


def masked(text: str) -> str:
    """The text, with the name of a variable in place of what it holds."""
    for name, value in os.environ.items():
        if name.upper().endswith(NAMES) and len(value) >= SHORTEST:
            text = text.replace(value, f"${name}")
    return text
