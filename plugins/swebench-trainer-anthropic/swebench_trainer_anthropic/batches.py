"""Message Batches behind the interface of single requests.

A request waits until its batch ends. The ids of sent batches are stored on disk, so that
a stopped run waits for them instead of sending them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from swebench_trainer.errors import TrainerError
from swebench_trainer.remote import (
    Fault,
    FaultKind,
    RowWriter,
    fault_of_status,
    read_rows,
)

FILE = "batches.jsonl"
SIZE = 2_000
"""Maximum requests in a batch: below its limit of 256 MB with prompts of 30,000 tokens."""
_GATHER = 0.1
"""Seconds without a new request until the open ones are sent as a batch."""

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
}
"""HTTP statuses that single requests have for the error types of batches."""

Request = dict[str, Any]
Response = dict[str, Any]


class Batches:
    """Sends requests in batches and returns the result of each.

    Args:
        api: `client.messages.batches` of the SDK.
        poll: Seconds between checks of a batch.
        fault: Converts an error of the SDK.
    """

    def __init__(
        self, api: Any, poll: float, fault: Callable[[Exception], Fault]
    ) -> None:
        self._api = api
        self._poll = poll
        self._fault = fault
        self._sent: dict[str, str] = {}
        self._open: dict[str, Request] = {}
        self._waiting: dict[str, asyncio.Future[Response]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._path: Path | None = None

    def keep_in(self, folder: Path) -> None:
        """Store batch ids in this folder, and load the ids from earlier attempts."""
        self._path = folder / FILE
        for row in read_rows(self._path):
            self._sent.update(dict.fromkeys(row["requests"], row["batch"]))

    async def ask(self, name: str, request: Request) -> Response:
        """Return the response to a request.

        Args:
            name: Identifies the request, also in later processes.
            request: Fields of the Messages API.

        Raises:
            Fault: The batch or this request failed.
        """
        answer = asyncio.get_running_loop().create_future()
        self._waiting[name] = answer
        if batch := self._sent.get(name):
            self._start(batch, self._watch(batch))
        else:
            self._open[name] = request
            self._start("", self._send())
        return await answer  # type: ignore[no-any-return]  # a response, see `_deliver`

    async def close(self) -> None:
        """Stop waiting."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task unless it is already running."""
        if key in self._tasks and not self._tasks[key].done():
            work.close()
        else:
            self._tasks[key] = asyncio.create_task(work)

    async def _send(self) -> None:
        """Send the open requests, including those that arrive meanwhile."""
        while self._open:
            count = 0
            while count < len(self._open):
                count = len(self._open)
                await asyncio.sleep(_GATHER)
            names = list(self._open)[:SIZE]
            entries = [{"custom_id": n, "params": self._open.pop(n)} for n in names]
            fault: Exception = Fault(FaultKind.BUSY, "the batch was not sent")
            sent = False
            try:
                batch = await self._api.create(requests=entries)
                self._record(batch.id, names)
                sent = True
            except (TrainerError, OSError) as error:  # the id cannot be stored
                fault = error
            except Exception as error:  # whatever the SDK raises is a fault
                fault = self._fault(error)
            finally:
                if not sent:
                    self._fail(names, fault)
            if sent:
                self._start(batch.id, self._watch(batch.id))

    def _record(self, batch: str, names: list[str]) -> None:
        self._sent.update(dict.fromkeys(names, batch))
        if self._path:
            with RowWriter(self._path) as rows:
                rows.write({"batch": batch, "requests": names})

    async def _watch(self, batch: str) -> None:
        """Wait until a batch ends, and deliver its results."""
        fault = Fault(FaultKind.BUSY, f"batch {batch} could not be read")
        resend = False
        try:
            while (await self._api.retrieve(batch)).processing_status != "ended":
                await asyncio.sleep(self._poll)
            async for entry in await self._api.results(batch):
                self._deliver(entry.custom_id, entry.result.to_dict())
            resend = True
            fault = Fault(
                FaultKind.BUSY, f"batch {batch} has no result for this request"
            )
        except Exception as error:  # whatever the SDK raises is a fault
            fault = self._fault(error)
            resend = fault.kind is FaultKind.MODEL  # results expire after some weeks
            if resend:
                fault = Fault(FaultKind.BUSY, f"batch {batch}: {fault.reason}")
        finally:  # even after a bug, no request may wait forever
            names = [n for n, b in self._sent.items() if b == batch]
            self._fail(names, fault, resend=resend)

    def _deliver(self, name: str, result: Mapping[str, Any]) -> None:
        """Deliver one result."""
        if result["type"] == "succeeded":
            if (answer := self._waiting.pop(name, None)) and not answer.done():
                answer.set_result(result["message"])
            return
        self._fail([name], _fault_of(result))

    def _fail(self, names: list[str], fault: Exception, *, resend: bool = True) -> None:
        """Deliver a fault.

        Args:
            names: Names of the requests.
            fault: Their fault, or an error that stops the stage.
            resend: Whether a retry sends them in a new batch; otherwise it waits for
                the same batch again.
        """
        for name in names:
            if answer := self._waiting.pop(name, None):
                if resend:
                    self._sent.pop(name, None)
                if not answer.done():
                    answer.set_exception(fault)


def _fault_of(result: Mapping[str, Any]) -> Fault:
    """The fault of a request without an answer in its batch."""
    if result["type"] != "errored":
        return Fault(FaultKind.BUSY, f"{result['type']} in its batch")
    error = result["error"]["error"]
    reason, code = error.get("message", ""), error.get("type", "")
    return fault_of_status(_STATUS.get(code, 500), reason, code=code)
