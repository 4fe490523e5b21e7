"""Predictions in the harness's format.

A `.jsonl` file has one object per line; a `.json` file has a list of objects, or objects
by instance id. Each object has `instance_id`, `model_name_or_path` and `model_patch`.

A folder is a submission in the layout of the SWE-bench experiments repository (one of
`FILES`, or `logs/<instance>/patch.diff`), or the harness's logs of a model
(`<instance>/patch.diff`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swebench_trainer.errors import DataError
from swebench_trainer.store.json_files import read_entries, read_text
from swebench_trainer.types import Candidate

FILES = (
    "all_preds.jsonl",
    "preds.json",
    "preds.jsonl",
    "all_preds.json",
    "predictions.jsonl",
    "predictions.json",
)
"""File names of a submission's predictions; the first existing file is used."""

LOGS = "logs"
"""Folder of a submission with a subfolder per instance."""

PATCH = "patch.diff"
"""The harness's file name for a graded patch."""


@dataclass(frozen=True)
class Prediction:
    """One predicted patch.

    Attributes:
        model: `model_name_or_path`.
        patch: `model_patch`; empty if there is none.
        place: Position in its file, for messages.
    """

    instance_id: str
    model: str
    patch: str
    place: str


def prediction_row(candidate: Candidate) -> dict[str, str]:
    """Return a candidate in the harness's format."""
    return {
        "instance_id": candidate.instance_id,
        "model_name_or_path": candidate.model,
        "model_patch": candidate.patch,
    }


def predictions_in(path: Path) -> Path:
    """Return the file of predictions in a folder, or the path itself if there is none."""
    return next(filter(Path.is_file, map(path.joinpath, FILES)), path)


def read_predictions(path: Path) -> list[Prediction]:
    """Read the predictions of a file or folder in order.

    Raises:
        DataError: The file cannot be read, an entry is invalid (the message names the
            file and the line or entry), or a folder has no predictions.
    """
    path = predictions_in(path)
    if path.is_dir():
        return _from_logs(path)
    return [_prediction(*entry) for entry in read_entries(path)]


def _from_logs(folder: Path) -> list[Prediction]:
    """Read the predictions of a submission's logs."""
    places = (f"{LOGS}/*/{PATCH}", f"*/{PATCH}")
    patches = next(filter(None, (sorted(folder.glob(place)) for place in places)), [])
    if not patches:
        raise DataError(
            f"The folder {folder} has no predictions: neither {', '.join(FILES)} nor {LOGS}/<instance>/{PATCH} nor <instance>/{PATCH}.",
            hint="Name a submission of the experiments repository, such as evaluation/verified/<submission>, a folder of the harness, such as logs/run_evaluation/<run>/<model>, or a file.",
        )
    return [
        Prediction(path.parent.name, folder.resolve().name, read_text(path), str(path))
        for path in patches
    ]


def _prediction(place: str, name: str, row: Any) -> Prediction:
    if not isinstance(row, dict):
        raise DataError(f"{place}: not a JSON object.")
    if name:
        row = {"instance_id": name, **row}
    for key in ("instance_id", "model_name_or_path"):
        if not (isinstance(row.get(key), str) and row[key]):
            raise DataError(f"{place}: {key} is missing, empty, or not a string.")
    patch = row.get("model_patch", ...)
    if not (patch is None or isinstance(patch, str)):
        raise DataError(f"{place}: model_patch must be a string (a diff) or null.")
    return Prediction(row["instance_id"], row["model_name_or_path"], patch or "", place)
