"""Predictions in the harness's format, from anyone's run.

`.jsonl` has one object per line; `.json` a list of objects, or an object of them
by instance id. Each has `instance_id`, `model_name_or_path` and `model_patch`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swebench_trainer.errors import DataError
from swebench_trainer.types import Candidate


@dataclass(frozen=True)
class Prediction:
    """One predicted patch.

    Attributes:
        model: `model_name_or_path`.
        patch: `model_patch`; empty when the model gave none.
        place: Where it stands in its file, for messages.
    """

    instance_id: str
    model: str
    patch: str
    place: str


def prediction_row(candidate: Candidate) -> dict[str, str]:
    """A candidate as the harness reads it."""
    return {
        "instance_id": candidate.instance_id,
        "model_name_or_path": candidate.model,
        "model_patch": candidate.patch,
    }


def read_predictions(path: Path) -> list[Prediction]:
    """Reads a file of predictions, in its order.

    Raises:
        DataError: The file cannot be read, or an entry is no prediction; the
            message names the file and the line or the entry.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"The predictions {path} cannot be read: {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text, so it holds no predictions."
        ) from error
    entries = _entries(path, text) if path.suffix == ".json" else _lines(path, text)
    return [_prediction(f"{path}, {place}", row) for place, row in entries]


def _lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    # Not splitlines(): JSON strings may hold separators such as U+2028 as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: no JSON ({error}).") from error


def _entries(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: no JSON ({error.msg})."
        ) from error
    if isinstance(value, dict):
        value = [
            {"instance_id": key, **row} if isinstance(row, dict) else row
            for key, row in value.items()
        ]
    if not isinstance(value, list):
        raise DataError(
            f"{path} is neither a list of predictions nor an object of them."
        )
    for number, row in enumerate(value, start=1):
        yield f"entry {number}", row


def _prediction(place: str, row: Any) -> Prediction:
    if not isinstance(row, dict):
        raise DataError(f"{place}: not a JSON object.")
    for key in ("instance_id", "model_name_or_path"):
        if not (isinstance(row.get(key), str) and row[key]):
            raise DataError(f"{place}: no {key}.")
    patch = row.get("model_patch", ...)
    if not (patch is None or isinstance(patch, str)):
        raise DataError(
            f"{place}: no model_patch, which is a diff, or null where there is none."
        )
    return Prediction(row["instance_id"], row["model_name_or_path"], patch or "", place)
