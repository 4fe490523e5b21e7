"""From a dataset row to an `Instance`, or to the reason why not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from swebench_trainer.types import Instance, is_unicode

_REQUIRED = ("instance_id", "repo", "base_commit", "problem_statement", "patch")
_TEXT = (
    *("test_patch", "version", "image", "eval_script", "log_parser"),
    *("created_at", "requirements", "interface", "language", "difficulty"),
)
_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")


def instance_from_row(row: Mapping[str, Any], *, source: str) -> Instance:
    """Checks a row and makes an instance of it.

    Args:
        row: The columns of swebench 5; those that only grading needs may be missing.
        source: Where the row came from.

    Raises:
        ValueError: The row cannot be used; the message says why.
    """
    for column in _REQUIRED:
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"column {column!r} is missing or empty")
        if not is_unicode(value):
            raise ValueError(f"column {column!r} holds half a character")
    instance_id = row["instance_id"]
    if not _SAFE_ID.fullmatch(instance_id):
        # Ids become names of directories and containers.
        raise ValueError("instance_id has characters other than letters, digits, ._+-")
    texts: dict[str, Any] = {column: _text(row, column) for column in _TEXT}
    return Instance(
        **{column: row[column] for column in _REQUIRED},
        **texts,
        eval_type=_text(row, "eval_type") or "pass_and_fail",
        FAIL_TO_PASS=_names(row, "FAIL_TO_PASS"),
        PASS_TO_PASS=_names(row, "PASS_TO_PASS"),
        source=source,
    )


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value)


def _names(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """Test names, given as a list or as the JSON of one."""
    value = row.get(column)
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"column {column!r} is not a JSON list") from error
    try:
        names = tuple(value)
    except TypeError as error:
        raise ValueError(f"column {column!r} is not a list") from error
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"column {column!r} holds something that is not a string")
    return names
