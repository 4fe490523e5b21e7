"""Keeps API keys out of messages, logs and events: error texts of SDKs may repeat one."""

from __future__ import annotations

import os

SECRET_SUFFIXES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""Environment variables whose names end with one of these hold secrets."""
MIN_LENGTH = 8
"""Shortest value that counts as a secret, in characters."""


def without_secrets(text: str) -> str:
    """The text, with `$NAME` in place of the value of each secret variable."""
    for name, value in os.environ.items():
        if name.upper().endswith(SECRET_SUFFIXES) and len(value) >= MIN_LENGTH:
            text = text.replace(value, f"${name}")
    return text
