"""Every response on disk before it is used, so that none is paid for twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.remote.service import Usage
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import RowWriter, each_row_at, row_at

_Key = tuple[str, str, int]


@dataclass(frozen=True)
class Found:
    """What is kept for a request.

    Attributes:
        row: The row of the response, or of the refusal.
        place: Which of the response's answers it is.
    """

    row: Mapping[str, Any]
    place: int


class KeptResponses:
    """A file of responses, found again by what was asked.

    A row has `instance_id`, `samples`, the digest of writer, prompt and settings
    (`asked`), `usage` and the service's own `response`; or, instead of a response, why
    there is none (`refused`). A response that could not be read has no `samples`.

    Attributes:
        usage: Tokens of all responses in the file.
        answered: Whether one of them answers anything.

    Args:
        path: Made with the first row; `None` keeps nothing and counts alone.
        writer: Settings that decide what the writer answers.
    """

    def __init__(self, path: Path | None, writer: Mapping[str, Any]) -> None:
        self._path = path
        self._writer = writer
        self._rows: RowWriter | None = None
        self._places: dict[_Key, tuple[int, int]] = {}
        self.usage = Usage()
        self.answered = False
        for offset, row in each_row_at(path) if path else ():
            self._count(row, offset)

    def find(self, request: SampleRequest) -> Found | None:
        """What is kept for a request, if anything."""
        if self._path is None or not self._places:  # digests take time
            return None
        key = (request.instance_id, self._asked(request), request.sample)
        if key not in self._places:
            return None
        offset, place = self._places[key]
        return Found(row_at(self._path, offset), place)

    def keep(
        self,
        requests: tuple[SampleRequest, ...],
        usage: Usage,
        response: Mapping[str, Any],
    ) -> None:
        """Writes a response.

        Args:
            requests: Those that the response answers, in its order.
            usage: Its tokens.
            response: As it came.
        """
        self._write(requests, usage=dataclasses.asdict(usage), response=response)

    def refuse(
        self, requests: tuple[SampleRequest, ...], finish: str, reason: str
    ) -> None:
        """Writes that there will be no answer."""
        self._write(requests, refused=reason, finish=finish)

    def spoil(
        self, request: SampleRequest, usage: Usage, response: Mapping[str, Any]
    ) -> None:
        """Writes a response that cannot be read: it may have been paid for."""
        self._write((request,), usage=dataclasses.asdict(usage), spoilt=response)

    def close(self) -> None:
        """Closes the file."""
        if self._rows:
            self._rows.__exit__()
            self._rows = None

    def _write(self, requests: tuple[SampleRequest, ...], **values: Any) -> None:
        first = requests[0]
        samples = [] if "spoilt" in values else [r.sample for r in requests]
        row = {
            "instance_id": first.instance_id,
            "samples": samples,
            "asked": self._asked(first),
            **values,
        }
        if self._path and not self._rows:
            self._rows = RowWriter(self._path)
        self._count(row, self._rows.append(row) if self._rows else 0)

    def _count(self, row: Mapping[str, Any], offset: int) -> None:
        for place, sample in enumerate(row["samples"]):
            self._places[row["instance_id"], row["asked"], sample] = (offset, place)
        if "usage" in row:
            self.usage += Usage(**row["usage"])
            self.answered |= bool(row["samples"])

    def _asked(self, request: SampleRequest) -> str:
        settings = dataclasses.asdict(request)
        # The seed of a sample follows from its number and the recipe's own seed, and
        # one response may answer several.
        for name in ("instance_id", "sample", "seed"):
            del settings[name]
        return digest({"writer": self._writer, **settings})
