"""The `rows` source: swebench rows from a file or from the Hugging Face Hub."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from swebench_trainer.contracts import SourceData
from swebench_trainer.data.columns import instance_from_row, is_prepared
from swebench_trainer.data.json_rows import JsonLines, JsonList
from swebench_trainer.errors import DataError
from swebench_trainer.recipe.models import VOLATILE, DataTable, from_recipe_folder
from swebench_trainer.store.digest import digest, digest_path
from swebench_trainer.store.spool import Spool
from swebench_trainer.types import Instance

ALIASES = {
    "full": "SWE-bench/SWE-bench",
    "lite": "SWE-bench/SWE-bench_Lite",
    "verified": "SWE-bench/SWE-bench_Verified",
    "multilingual": "SWE-bench/SWE-bench_Multilingual",
    "multimodal": "SWE-bench/SWE-bench_Multimodal",
}
"""Short names of the datasets that swebench publishes."""

ROW_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
"""Suffixes of files of rows."""

_DAMAGED = "Fix the file or download it again; the download may be incomplete."


def _file_or_dataset(path: str, info: ValidationInfo) -> str:
    if path.endswith(ROW_SUFFIXES):
        return str(from_recipe_folder(path, info))
    return ALIASES.get(path.lower(), path)


RowsPath = Annotated[
    str,
    AfterValidator(_file_or_dataset),
    Field(min_length=1, json_schema_extra={VOLATILE: True}),
]
"""A file of rows, or the name of a Hub dataset."""


class RowsTable(DataTable):
    """Keys of `[data] use = "rows"`."""

    path: RowsPath
    """A `.parquet`, `.jsonl`, `.json` or `.csv` file, a Hub dataset id, or `full`, `lite`, `verified`, `multilingual`, `multimodal`."""
    split: str = "test"
    """Split of a Hub dataset."""


class RowsSource:
    """Rows of the SWE-bench family, from a file or a Hub dataset.

    An unusable row is dropped with the reason.
    """

    def __init__(self, table: RowsTable) -> None:
        self._path = table.path
        self._split = table.split
        self._file = Path(table.path) if table.path.endswith(ROW_SUFFIXES) else None

    def load(self) -> SourceData:
        """Read every row. See `Source.load`."""
        return self.load_with(instance_from_row if self._file else _foreign_instance)

    def load_with(self, make: Callable[..., Instance]) -> SourceData:
        """Read every row; `make` has the signature of `instance_from_row`."""
        if self._file:
            rows = read_rows_file(self._file)
            return to_instances(rows, source=self._file.name, make=make)
        rows = _hub_rows(self._path, self._split)
        source = f"{Path(self._path).name}:{self._split}"
        return to_instances(rows, source=source, make=make)

    def digest(self) -> str:
        """Digest of the file, or of the name of a Hub dataset."""
        if self._file:
            _check_file(self._file)
            return digest_path(self._file)
        return digest([self._path, self._split])


def _foreign_instance(row: Mapping[str, Any], *, source: str) -> Instance:
    """Convert a row of a Hub dataset, which may not bring a program for this machine.

    Raises:
        ValueError: The row is unusable; the message gives the reason.
    """
    if is_prepared(row) and row.get("parser"):
        raise ValueError(
            "its parser would run on this machine; if you trust it, read the rows from "
            "a local file"
        )
    return instance_from_row(row, source=source)


def to_instances(
    rows: Iterable[Mapping[str, Any]],
    *,
    source: str,
    dropped: list[tuple[str, str]] | None = None,
    make: Callable[..., Instance] = instance_from_row,
) -> SourceData:
    """Convert rows to instances, dropping unusable and duplicate rows.

    Args:
        rows: Rows of the source.
        source: Name of the source.
        dropped: Receives the reasons; `rows` may append to it during iteration.
        make: Converts a row, with the signature of `instance_from_row`.

    Raises:
        DataError: No row is usable.
    """
    instances: Spool[Instance] = Spool()
    seen: set[str] = set()
    dropped = [] if dropped is None else dropped
    for number, row in enumerate(rows, start=1):
        name = str(row.get("instance_id") or f"row {number}")[:200]
        try:
            instance = make(row, source=source)
        except ValueError as error:
            dropped.append((name, str(error)))
            continue
        if name in seen:
            dropped.append((name, "duplicates the instance_id of an earlier row"))
        else:
            seen.add(name)
            instances.append(instance)
    if not instances:
        why = f"; first: {dropped[0][0]}: {dropped[0][1]}" if dropped else ""
        raise DataError(
            f"{source} has no usable row ({len(dropped)} dropped{why}).",
            hint="Rows need instance_id, repo, base_commit, problem_statement and patch, or "
            "the columns of SWE-smith or SWE-rebench.",
        )
    return SourceData(instances, tuple(dropped))


def read_rows_file(path: Path) -> Iterator[Mapping[str, Any]]:
    """Read the rows of a `.parquet`, `.jsonl`, `.json` or `.csv` file.

    Raises:
        DataError: The file cannot be read; the message names the line for JSON and CSV.
    """
    _check_file(path)
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".csv":
        yield from _csv_rows(path)
    else:
        yield from _json_rows(path)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist.",
            hint="Check the path: in a recipe it is relative to the recipe's directory, on "
            "the command line to the current one.",
        )
    if not os.access(path, os.R_OK):
        raise DataError(f"No permission to read {path}.", hint="Check its permissions.")


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(64):
            names = batch.schema.names
            for row in range(batch.num_rows):
                cells = (_cell(column, row) for column in batch.columns)
                yield dict(zip(names, cells, strict=True))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable parquet file: {error}", hint=_DAMAGED
        ) from error


def _cell(column: Any, row: int) -> Any:
    """The value of a cell; `bytes`, which no column has, if Python cannot represent it."""
    try:
        return column[row].as_py()
    except (ValueError, OverflowError):  # not UTF-8, or a date after the year 9999
        return b""


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        rows = (JsonLines if path.suffix == ".jsonl" else JsonList)(file)
        try:
            for row in rows:
                if not isinstance(row, dict):
                    raise DataError(
                        f"{path}, line {rows.line}: a row must be a JSON object.",
                        hint=_DAMAGED,
                    )
                yield row
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, after line {rows.line}: not UTF-8: {error}.", hint=_DAMAGED
            ) from error
        except (ValueError, RecursionError) as error:
            # A ValueError of another type is about a number with too many digits.
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise DataError(
                f"{path}, line {rows.line}: not JSON: {reason}.",
                hint=f"{_DAMAGED} A .json file holds a list of rows; .jsonl has a row "
                "per line.",
            ) from error


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    # The limit is global to the process; patches exceed its default.
    csv.field_size_limit(max(csv.field_size_limit(), path.stat().st_size))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {reader.line_num}: the number of columns differs "
                        "from the first line.",
                        hint=_DAMAGED,
                    )
                yield row
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.", hint=_DAMAGED) from error
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: not CSV: {error}.", hint=_DAMAGED
        ) from error


def _hub_rows(name: str, split: str) -> Iterator[Mapping[str, Any]]:
    from datasets import load_dataset
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise DataError(
            f"{name} is not an existing file, a task repo, or a valid Hub dataset name.",
            hint="Check the path. Supported: .parquet, .jsonl, .json and .csv files.",
        ) from error
    try:
        yield from load_dataset(name, split=split)
    except Exception as error:  # datasets raises many types for a missing dataset
        raise DataError(
            f"Cannot load the dataset {name!r} (split {split!r}): {error}",
            hint="Check the name and the network. Local data: an existing .parquet, "
            ".jsonl, .json or .csv file, or a task repo (a directory with tasks/).",
        ) from error
