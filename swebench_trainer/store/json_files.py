"""JSON files written by users: one value per line, or one list or object of values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swebench_trainer.errors import DataError


def read_entries(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Read the entries of a `.json` file, or of another file with one per line.

    Yields:
        The place for messages, the key in a JSON object (else empty), and the value.

    Raises:
        DataError: The file cannot be read; the message has the line of invalid JSON.
    """
    text = read_text(path).removeprefix("\ufeff")
    if path.suffix != ".json":
        # Not splitlines(): JSON strings may contain separators such as U+2028.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield place, "", _parse(line, place)
        return
    value = _parse(text, str(path))
    if not isinstance(value, dict | list):
        raise DataError(f"{path} is neither a list nor an object in JSON.")
    keyed = value.items() if isinstance(value, dict) else (("", v) for v in value)
    for number, (key, entry) in enumerate(keyed, start=1):
        yield f"{path}, entry {number}", key, entry


def read_text(path: Path) -> str:
    """Read a text file with its line ends, which are part of a patch.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}.") from error


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"{place}, line {error.lineno}" if error.lineno > 1 else place
        raise DataError(f"{at}: invalid JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:  # a number, or depth, beyond Python
        raise DataError(f"{place}: invalid JSON ({error}).") from error
