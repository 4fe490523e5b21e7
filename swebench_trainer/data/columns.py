"""Conversion of dataset rows to instances.

`instance_from_row` accepts the rows of the whole SWE-bench family; `_classic` handles
their differences. It also reads the rows that we write, with all their columns. Sources (read in November 2026):

- swebench 5 rows: `swebench.harness.utils.make_test_spec`, which lists the columns that
  grading needs, and `image_assets`, JSON on the Hub and an object elsewhere.
- Older rows (SWE-bench's card on the Hub): the same without `image`, `eval_script`,
  `log_parser` and `eval_type`, lists of tests as JSON, `environment_setup_commit`.
  SWE-bench's train split has no tests (issue 182 of its repository).
- SWE-Gym's card: these columns too, lists of tests as lists.
- SWE-smith's cards: `image_name`, no `base_commit`, and `patch` is "the diff that, when
  applied, creates the bug" (its guide on harnesses). Its `gather.py` commits that diff
  to a branch named like the instance, in a mirror `swesmith/owner__name.commit`.
- SWE-rebench: the classic columns and `install_config` (its fork of the harness names it)
  and `docker_image` and `meta`, whose formats we have not seen: `docker_image` is used
  if it is a string, `meta` is ignored. Its `requirements` are pip requirements, not a
  text for the model as in SWE-bench Pro.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from pydantic import ValidationError

from swebench_trainer.patches.reverse import reverse
from swebench_trainer.types import Instance, from_row, is_unicode

_REQUIRED = ("instance_id", "repo", "base_commit", "problem_statement", "patch")
_TEXT = [
    "test_patch",
    "version",
    "image",
    "eval_script",
    "log_parser",
    "created_at",
    "requirements",
    "interface",
    "language",
    "difficulty",
]
_NAMES = ("repo", "base_commit")
_PREPARED = ("workdir", "apply_mode", "contents")
"""Columns that only rows written by `as_row` have, such as `instances.jsonl` of a run."""
_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
_SAFE_REPO = re.compile(
    r"(?:(?!\.{1,2}(?:/|$))[A-Za-z0-9._+][A-Za-z0-9._+-]{0,99}(?:/(?!$)|$)){1,4}"
)


def instance_from_row(row: Mapping[str, Any], *, source: str) -> Instance:
    """Validate a row and convert it to an instance.

    Args:
        row: Columns of a data set of the family. Columns that only grading needs may
            be missing.
        source: Name of the row's source.

    Raises:
        ValueError: The row is unusable; the message gives the reason.
    """
    if is_prepared(row):
        return _prepared_instance(row)
    row = _classic(row)
    _check_names(row)
    texts: dict[str, Any] = {column: _text(row, column) for column in _TEXT}
    assets = _assets(row)
    return Instance(
        **{column: row[column] for column in _REQUIRED},
        **texts,
        eval_type=_text(row, "eval_type") or "pass_and_fail",
        FAIL_TO_PASS=strings_of(row, "FAIL_TO_PASS"),
        PASS_TO_PASS=strings_of(row, "PASS_TO_PASS"),
        images=tuple(_places(assets.get("problem_statement"), "url")),
        test_files=tuple(
            path
            for key in ("test_patch", "patch")
            for path in _places(assets.get(key), "path")
        ),
        source=source,
    )


def is_prepared(row: Mapping[str, Any]) -> bool:
    """Whether a row is an `Instance` that a run or `grade` wrote."""
    return all(column in row for column in _PREPARED)


def _prepared_instance(row: Mapping[str, Any]) -> Instance:
    _check_names(row)
    for column, value in row.items():
        if isinstance(value, str):
            _require_unicode(column, value)
    try:
        return from_row(Instance, row)
    except ValidationError as error:
        detail = error.errors()[0]
        column = ".".join(map(str, detail["loc"]))
        raise ValueError(f"column {column!r}: {detail['msg']}") from error


def _check_names(row: Mapping[str, Any]) -> None:
    """Check the columns that every row needs, and those that become names.

    Raises:
        ValueError: One is missing or unsafe.
    """
    for column in _REQUIRED:
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"column {column!r} is missing or empty")
        _require_unicode(column, value)
    if not _SAFE_ID.fullmatch(row["instance_id"]):
        # Ids become names of directories and containers.
        raise ValueError("instance_id has characters other than letters, digits, ._+-")
    if not _SAFE_REPO.fullmatch(row["repo"]):
        # Repositories become directories, addresses and links.
        raise ValueError(
            "repo is not owner/name with letters, digits, and ._+- in its parts"
        )
    for column in _NAMES:
        # They become arguments of git.
        if row[column].startswith("-") or not row[column].isprintable():
            raise ValueError(f"column {column!r} is not a valid name")


def _classic(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with the columns of SWE-bench.

    Raises:
        ValueError: A patch that must be reversed is not reversible.
    """
    others = (row.get("image_name"), row.get("docker_image"))
    if not row.get("image") and (images := [o for o in others if isinstance(o, str)]):
        row = {**row, "image": images[0]}
    if "install_config" in row:
        row = {**row, "requirements": None}
    if any("swesmith" in str(row.get(c)).lower() for c in ("image_name", "repo")):
        # The mirror's branch with the bug; older rows have its commit.
        row = {**row, "base_commit": row.get("base_commit") or row.get("instance_id")}
        if isinstance(row.get("patch"), str):
            row["patch"] = reverse(row["patch"])
    return row


def _require_unicode(column: str, value: str) -> None:
    if not is_unicode(value):
        raise ValueError(f"column {column!r} has a lone surrogate")


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str | int | float | date):
        raise ValueError(f"column {column!r} is not a string")
    text = str(value)
    _require_unicode(column, text)
    return text


def strings_of(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """Strings, such as test names, from a list or a JSON list.

    Raises:
        ValueError: The value is not a list of strings.
    """
    value = _decoded(row, column, ())
    if not isinstance(value, list | tuple):
        raise ValueError(f"column {column!r} is not a list")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"column {column!r} has an item that is not a string")
        _require_unicode(column, name)
    return tuple(value)


def _decoded(row: Mapping[str, Any], column: str, missing: Any) -> Any:
    """The value of a column that may be JSON text; `missing` if it has none."""
    value = row.get(column)
    if value in (None, ""):
        return missing
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"column {column!r} is not JSON") from error


def _assets(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """SWE-bench Multimodal's asset files, by the column that they belong to."""
    assets = _decoded(row, "image_assets", {})
    if not isinstance(assets, Mapping):
        raise ValueError("column 'image_assets' is not an object")
    return assets


def _places(entries: Any, key: str) -> Iterator[str]:
    """URLs or paths of assets; each entry is a string or an object with `key`."""
    if entries is not None and not isinstance(entries, list | tuple):
        raise ValueError("column 'image_assets' has a value that is not a list")
    for entry in entries or ():
        place = entry.get(key) if isinstance(entry, Mapping) else entry
        if place is not None and not (isinstance(place, str) and is_unicode(place)):
            raise ValueError("column 'image_assets' has a name that is not a string")
        if place:
            yield place
