"""Responses on disk, written before use so that none is paid for twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.remote.service import Usage
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import RowWriter, damaged, each_row_at, row_at
from swebench_trainer.types import Finish

_Key = tuple[str, str, int]


class ResponseStore:
    """A file of responses, looked up by request.

    A row has `instance_id`, `samples`, the digest of model, prompt and settings
    (`asked`), `usage` and the raw `response`; or the reason of a refusal (`refused`)
    instead of a response. An unreadable response (`spoilt`) has no `samples`.

    Attributes:
        usage: Tokens of all responses in the file.
        answered: Whether the file has any answer.

    Args:
        path: Created with the first row; `None` only counts tokens.
        model: Settings of the model that decide its answers.
    """

    def __init__(self, path: Path | None, model: Mapping[str, Any]) -> None:
        self._path = path
        self._model = model
        self._rows: RowWriter | None = None
        self._index: dict[_Key, tuple[int, int]] = {}
        self.usage = Usage()
        self.answered = False
        for offset, row in each_row_at(path) if path else ():
            try:
                self._count(row, offset)
            except (AttributeError, KeyError, TypeError) as error:
                reason = f"the row is not one of a response ({error!r})"
                raise damaged(f"{path}, byte {offset}", reason) from error

    def find(self, request: SampleRequest) -> tuple[Mapping[str, Any], int] | None:
        """The row with the answer to a request or its refusal, and the answer's index."""
        if self._path is None or not self._index:  # skip computing digests
            return None
        key = (request.instance_id, self._asked(request), request.sample)
        if key not in self._index:
            return None
        offset, index = self._index[key]
        return row_at(self._path, offset), index

    def save(
        self,
        requests: tuple[SampleRequest, ...],
        usage: Usage,
        response: Mapping[str, Any],
    ) -> None:
        """Store a response.

        Args:
            requests: The requests that it answers, in order.
            usage: Its tokens.
            response: The raw response.
        """
        self._write(requests, usage=dataclasses.asdict(usage), response=response)

    def save_refusal(
        self, requests: tuple[SampleRequest, ...], finish: Finish, reason: str
    ) -> None:
        """Store that the service refuses to answer."""
        self._write(requests, refused=reason, finish=finish)

    def save_unreadable(
        self, request: SampleRequest, usage: Usage, response: Mapping[str, Any]
    ) -> None:
        """Store an unreadable response, which may have been billed."""
        self._write((request,), usage=dataclasses.asdict(usage), spoilt=response)

    def close(self) -> None:
        """Close the file."""
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
        self._count(row, self._rows.write(row) if self._rows else 0)

    def _count(self, row: Mapping[str, Any], offset: int) -> None:
        for index, sample in enumerate(row["samples"]):
            self._index[row["instance_id"], row["asked"], sample] = (offset, index)
        if "usage" in row:
            self.usage += Usage(**row["usage"])
            self.answered |= bool(row["samples"])

    def _asked(self, request: SampleRequest) -> str:
        settings = dataclasses.asdict(request)
        # A sample's seed follows from its number and the recipe's seed, and one response
        # may answer several samples.
        for name in ("instance_id", "sample", "seed"):
            del settings[name]
        return digest({"writer": self._model, **settings})
