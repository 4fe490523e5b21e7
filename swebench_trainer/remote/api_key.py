"""API keys: read from the environment, and removed from texts and responses."""

from __future__ import annotations

import os
from typing import Any

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.secrets import without_secret

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
    return without_secret(text, key, HIDDEN) if len(key) >= _SHORTEST else text


def redact_response(key: str, response: dict[str, Any]) -> dict[str, Any]:
    """A response without the key, in its values or its names."""
    hidden: dict[str, Any] = _redact_value(key, response)
    return hidden


def _redact_value(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return redact(key, value)
    if isinstance(value, list):
        return [_redact_value(key, item) for item in value]
    if isinstance(value, dict):
        return {redact(key, n): _redact_value(key, item) for n, item in value.items()}
    return value
