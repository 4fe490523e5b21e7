"""API keys: read from the environment, and removed from texts and responses."""

from __future__ import annotations

import json
import os
from typing import Any

from swebench_trainer.errors import PrerequisiteError

HIDDEN = "[the key]"
_SHORTEST = 8
"""Minimum length to redact; shorter keys would match unrelated text."""


def read_key(variable: str) -> str:
    """The key in an environment variable; empty if the service needs none.

    Raises:
        PrerequisiteError: The variable is not set or its value is not a valid key.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise PrerequisiteError(
            f"The environment variable {variable} is not set.",
            hint=f"Set it with: export {variable}=…, or use another variable with "
            "api_key_env.",
        )
    if not (key.isascii() and key.isprintable()):  # invalid in HTTP headers
        raise PrerequisiteError(
            f"The value of the environment variable {variable} is not a valid key: it "
            "contains a line break or special characters such as typographic quotes.",
            hint="Set the variable to the key without any other characters.",
        )
    return key


def redact(key: str, text: str) -> str:
    """The text without the key, which some services echo."""
    return text.replace(key, HIDDEN) if len(key) >= _SHORTEST else text


def redact_response(key: str, response: dict[str, Any]) -> dict[str, Any]:
    """A response without the key."""
    text = json.dumps(response)
    escaped = json.dumps(key)[1:-1]
    hidden = redact(escaped, text)
    return response if hidden == text else dict(json.loads(hidden))
