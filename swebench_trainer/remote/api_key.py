"""Keys come from the environment and go nowhere else."""

from __future__ import annotations

import json
import os
from typing import Any

from swebench_trainer.errors import PrerequisiteError

HIDDEN = "[the key]"
_SHORTEST = 8
"""A shorter key would be found in innocent texts."""


def read_key(variable: str) -> str:
    """The key in an environment variable; empty where a service wants none.

    Raises:
        PrerequisiteError: The variable is not set, or holds what can be no key.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise PrerequisiteError(
            f"The environment variable {variable} is not set.",
            hint=f"Put the key there: export {variable}=… "
            "(or name another variable with api_key_env).",
        )
    if not (key.isascii() and key.isprintable()):  # no header may have it
        raise PrerequisiteError(
            f"The environment variable {variable} holds what can be no key: "
            "characters such as typographic quotes, or a line break.",
            hint="Set it anew, with the key alone.",
        )
    return key


def hide(key: str, text: str) -> str:
    """The text without the key, which some services repeat in what they answer."""
    return text.replace(key, HIDDEN) if len(key) >= _SHORTEST else text


def hide_in(key: str, response: dict[str, Any]) -> dict[str, Any]:
    """A response without the key."""
    if len(key) < _SHORTEST:
        return response
    text = json.dumps(response)
    escaped = json.dumps(key)[1:-1]
    if escaped not in text:
        return response
    hidden: dict[str, Any] = json.loads(text.replace(escaped, HIDDEN))
    return hidden
