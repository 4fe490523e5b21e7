"""Message Batches behind the form of single requests.

A request waits until the batch that it is in has ended. Which batches were sent is kept
on disk, so that a run that was stopped waits for them instead of sending them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from swebench_trainer.remote import Fault, RowWriter, fault_of_status, read_rows

FILE = "batches.jsonl"
SIZE = 2_000
"""Requests in a batch: with prompts of 30,000 tokens still below the 256 MB it may have."""
_GATHER = 0.1
"""Seconds without another request after which those that came make a batch."""

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
}
"""Statuses that the errors of a batch have where they answer single requests."""

Request = dict[str, Any]
Response = dict[str, Any]


class Batches:
    """Sends requests in batches, and hands each its own result.

    Args:
        api: `client.messages.batches` of the SDK.
        poll: Seconds between questions whether a batch has ended.
        fault: What an error of the SDK means.
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
        """Remembers there what is sent, and what was sent before."""
        self._path = folder / FILE
        for row in read_rows(self._path):
            self._sent.update(dict.fromkeys(row["requests"], row["batch"]))

    async def ask(self, name: str, request: Request) -> Response:
        """The message that answers a request.

        Args:
            name: The same for the same request, in a later process too.
            request: Fields of the Messages API.

        Raises:
            Fault: The batch, or this request of it, has failed.
        """
        answer = asyncio.get_running_loop().create_future()
        self._waiting[name] = answer
        if batch := self._sent.get(name):
            self._start(batch, self._watch(batch))
        else:
            self._open[name] = request
            self._start("", self._send())
        return await answer  # type: ignore[no-any-return]  # a response, see `_settle`

    async def close(self) -> None:
        """Stops waiting."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Starts a task, unless it is under way already."""
        if key in self._tasks and not self._tasks[key].done():
            work.close()
        else:
            self._tasks[key] = asyncio.create_task(work)

    async def _send(self) -> None:
        """Sends what is open, and what comes meanwhile."""
        while self._open:
            count = 0
            while count < len(self._open):
                count = len(self._open)
                await asyncio.sleep(_GATHER)
            names = list(self._open)[:SIZE]
            entries = [{"custom_id": n, "params": self._open.pop(n)} for n in names]
            try:
                batch = await self._api.create(requests=entries)
            except Exception as error:  # whoever waits must hear of it, whatever it is
                self._fail(names, self._fault(error))
                continue
            self._remember(batch.id, names)
            self._start(batch.id, self._watch(batch.id))

    def _remember(self, batch: str, names: list[str]) -> None:
        self._sent.update(dict.fromkeys(names, batch))
        if self._path:
            with RowWriter(self._path) as rows:
                rows.write({"batch": batch, "requests": names})

    async def _watch(self, batch: str) -> None:
        """Waits until a batch has ended, and hands out its results."""
        gone = True
        try:
            while (await self._api.retrieve(batch)).processing_status != "ended":
                await asyncio.sleep(self._poll)
            async for entry in await self._api.results(batch):
                self._settle(entry.custom_id, entry.result.to_dict())
            fault = Fault("busy", f"batch {batch} has no result for it")
        except Exception as error:  # whoever waits must hear of it, whatever it is
            fault = self._fault(error)
            gone = fault.kind == "model"  # its results are kept for some weeks only
            if gone:
                fault = Fault("busy", f"batch {batch}: {fault.reason}")
        names = [n for n, b in self._sent.items() if b == batch]
        self._fail(names, fault, again=gone)

    def _settle(self, name: str, result: Mapping[str, Any]) -> None:
        """Hands one result to whoever waits for it."""
        if result["type"] == "succeeded":
            if (answer := self._waiting.pop(name, None)) and not answer.done():
                answer.set_result(result["message"])
            return
        self._fail([name], _fault_of(result))

    def _fail(self, names: list[str], fault: Fault, *, again: bool = True) -> None:
        """Hands out a fault.

        Args:
            names: Requests.
            fault: What became of them.
            again: Whether they are sent again when they are asked again; otherwise the
                batch that they are in is waited for once more.
        """
        for name in names:
            if answer := self._waiting.pop(name, None):
                if again:
                    self._sent.pop(name, None)
                if not answer.done():
                    answer.set_exception(fault)


def _fault_of(result: Mapping[str, Any]) -> Fault:
    """What became of a request that a batch has not answered."""
    if result["type"] != "errored":
        return Fault("busy", f"{result['type']} with its batch")
    error = result["error"]["error"]
    reason, code = error.get("message", ""), error.get("type", "")
    return fault_of_status(_STATUS.get(code, 500), reason, code=code)
