"""Concurrent requests to a service, without losing any response."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.errors import TrainerError
from swebench_trainer.remote.api_key import redact, redact_response
from swebench_trainer.remote.errors import budget_error, error_from
from swebench_trainer.remote.response_store import ResponseStore
from swebench_trainer.remote.service import (
    Ask,
    Fault,
    FaultKind,
    Reply,
    Service,
    Usage,
)
from swebench_trainer.remote.spending import SpendTracker, estimated, worst_case
from swebench_trainer.remote.tables import RemoteTable
from swebench_trainer.types import Finish

_T = TypeVar("_T")

_MAX_FAILURES = 3
"""Minimum number of consecutive failures that stop the stage."""
_MAX_REFUSALS = 8
"""Number of refused prompts without any answer that stop the stage."""
_MAX_WAIT = 120
"""Seconds. A longer `Retry-After` stops the stage."""
_PAUSE = 0.005
"""Seconds between two requests."""
_RAMP = 0.3
"""Maximum seconds until all concurrent requests are sent."""
_MAX_LAG = 0.05
"""Seconds that late requests can catch up."""

_TEMPORARY = (FaultKind.BUSY, FaultKind.UNREADABLE)


@dataclass
class RemoteSampler:
    """A `Sampler` on top of a service.

    Attributes:
        service: The API.
        table: The recipe's table.
        key: The API key, to redact it from files and messages.
        store: Responses of this stage, including earlier attempts.
        several: Whether one request may return all answers to a prompt.
        leads: Whether the first request for a prompt is sent before the others, so
            that they hit the service's prompt cache.
    """

    service: Service
    table: RemoteTable
    key: str = field(repr=False)
    store: ResponseStore
    several: bool = False
    leads: bool = False
    _loop: _EventLoopThread | None = None

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`. Stored answers come first, at no cost.

        Raises:
            PrerequisiteError: The key is invalid.
            RecipeError: The model does not exist, or every request is refused.
            StageError: The budget is exhausted, or the service is unavailable. All
                received answers are yielded first.
        """
        missing = []
        for request in requests:
            sample = self._stored(request)
            if sample is None:
                missing.append(request)
            else:
                yield sample
        if missing:
            yield from self._requested(missing)

    def close(self) -> None:
        """Cancel pending requests and close connections."""
        if self._loop:
            self._loop.close(self.service.close())
            self._loop = None
        self.store.close()

    def _stored(self, request: SampleRequest) -> Sample | None:
        found = self.store.find(request)
        if found is None:
            return None
        row, index = found
        if "refused" in row:
            return _refusal(request, row["finish"])
        try:
            reply = self.service.read(row["response"])
        except Fault as fault:  # a newer version of the service rejects it
            return _refusal(request, fault.kind)
        return _sample(request, reply, index, Usage(**row["usage"]))

    def _requested(self, missing: Sequence[SampleRequest]) -> Iterator[Sample]:
        samples: SimpleQueue[Sample | None] = SimpleQueue()
        asks = group_requests(missing, several=self.several, leads=self.leads)
        work = _Scheduler(self.service, self.table, self.key, self.store, samples.put)
        self._loop = self._loop or _EventLoopThread()
        done = self._loop.start(work.run(asks))
        done.add_done_callback(lambda _: samples.put(None))
        try:
            while (sample := samples.get()) is not None:
                yield sample
            done.result()
        finally:
            done.cancel()


def group_requests(
    requests: Iterable[SampleRequest], *, several: bool, leads: bool
) -> list[list[Ask]]:
    """Group requests into asks, with one list per prompt, in sending order.

    Args:
        requests: The requests in sending order.
        several: Whether an ask may have all requests that differ only in `sample`.
        leads: Whether the first ask of a prompt is sent before the others.
    """
    same: dict[Any, list[SampleRequest]] = {}
    for request in requests:
        settings = {**vars(request), "sample": None, "seed": None}
        same.setdefault(tuple(settings.values()), []).append(request)
    prompts: dict[tuple[str, str], list[Ask]] = {}
    for group in same.values():
        chunks = [tuple(group)] if several else [(request,) for request in group]
        asks = prompts.setdefault((group[0].instance_id, group[0].prompt), [])
        asks += [Ask(chunk) for chunk in chunks]
    chains = []
    for asks in prompts.values():
        if leads and len(asks) > 1:
            chains.append([Ask(ask.requests, shared=True) for ask in asks])
        else:
            chains += [[ask] for ask in asks]
    return chains


class RequestPacer:
    """Spreads requests over time.

    Requests that start together also end together, and would then all wait while each
    response is processed. The pauses are deadlines rather than sleeps: on a busy machine
    late requests catch up, by at most 50 ms.

    Args:
        concurrency: Maximum number of concurrent requests.
        now: Current time in seconds.
    """

    def __init__(self, concurrency: int, now: float) -> None:
        self._pause = min(_PAUSE, _RAMP / concurrency)
        self._next = now

    def wait(self, now: float) -> float:
        """Seconds until the next request, which is counted as sent by then."""
        due = max(self._next, now - _MAX_LAG)
        self._next = due + self._pause
        return max(0.0, due - now)


@dataclass
class _Scheduler:
    """One call of `sample`: queued and pending asks, and the reason to stop."""

    service: Service
    table: RemoteTable
    key: str = field(repr=False)
    store: ResponseStore
    emit: Callable[[Sample], None]
    _chains: deque[deque[Ask]] = field(default_factory=deque)
    _pending: dict[asyncio.Task[Reply], deque[Ask]] = field(default_factory=dict)
    _done: asyncio.Queue[asyncio.Task[Reply]] = field(default_factory=asyncio.Queue)
    _refused: list[tuple[Ask, Fault]] = field(default_factory=list)
    _failures: Counter[Ask] = field(default_factory=Counter)
    _consecutive_failures: int = 0
    _stop: Callable[[], TrainerError] | None = None

    def __post_init__(self) -> None:
        self._spending = SpendTracker(self.table, self.store)
        self._answered = self.store.answered

    async def run(self, chains: Iterable[Iterable[Ask]]) -> None:
        """Send all asks, at most `concurrency` at a time.

        Raises:
            TrainerError: Sampling stopped; received answers have been emitted.
        """
        self._chains.extend(map(deque, chains))
        clock = asyncio.get_running_loop().time
        pacer = RequestPacer(self.table.concurrency, clock())
        try:
            while await self._start(lambda: pacer.wait(clock())):
                task = await self._done.get()
                self._handle_result(task, self._pending.pop(task))
        finally:
            await _cancel(self._pending)
        self._finish_refused()
        if self._stop:
            raise self._stop()

    async def _start(self, pause: Callable[[], float]) -> bool:
        """Send asks within concurrency and budget; returns whether any ask is pending."""
        while self._chains and not self._stop:
            ask = self._chains[0][0]
            if len(self._pending) >= self.table.concurrency:
                break
            if not self._spending.can_afford(ask):
                if not self._pending:
                    self._stop = self._budget_spent
                break
            if seconds := pause():
                await asyncio.sleep(seconds)
            self._spending.reserve(ask)
            chain = self._chains.popleft()
            task = asyncio.create_task(self._ask(ask))
            task.add_done_callback(self._done.put_nowait)
            self._pending[task] = chain
        return bool(self._pending)

    async def _ask(self, ask: Ask) -> Reply:
        """Send a request, and retry unreadable responses within the budget."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(
                lambda e: _is_unreadable(e) and self._spending.within_budget
            ),
            wait=wait_random_exponential(multiplier=0.5, max=8),
            stop=stop_after_attempt(self.table.retries + 1),
            reraise=True,
        )
        return await retrying(self._ask_once, ask)

    async def _ask_once(self, ask: Ask) -> Reply:
        response = redact_response(self.key, await self.service.ask(ask))
        try:
            reply = self.service.read(response)
        except Exception as error:  # or a bug of a plugin: it may have been billed
            if not isinstance(error, Fault) or _is_unreadable(error):
                # The actual usage is part of the unreadable response.
                self.store.save_unreadable(ask.first, worst_case(ask), response)
            raise
        texts = [answer.text for answer in reply.answers]
        usage = reply.usage or estimated(ask, texts)
        self.store.save(ask.requests[: len(reply.answers)], usage, response)
        return Reply(reply.answers, usage)

    def _handle_result(self, task: asyncio.Task[Reply], chain: deque[Ask]) -> None:
        """Emit the answers of an ask; the other asks of its prompt may be sent now."""
        ask = chain.popleft()
        self._spending.release(ask)
        try:
            reply = task.result()
        except Fault as fault:
            self._handle_fault(ask, chain, fault)
            return
        self._consecutive_failures, self._answered = 0, True
        for index, request in enumerate(ask.requests[: len(reply.answers)]):
            self.emit(_sample(request, reply, index, reply.usage or Usage()))
        if rest := ask.requests[len(reply.answers) :]:
            chain.appendleft(Ask(rest, ask.shared))
        # At the front, while the prompt is in the service's cache.
        self._chains.extendleft(deque([ask]) for ask in reversed(chain))

    def _handle_fault(self, ask: Ask, chain: deque[Ask], fault: Fault) -> None:
        """Retry, skip or stop, depending on the fault of an ask."""
        if fault.kind is FaultKind.TOO_LONG:
            self._refuse(ask, fault)
        elif fault.kind is FaultKind.REFUSED:
            self._refused.append((ask, fault))
            prompts = {refused.first.instance_id for refused, _ in self._refused}
            if not self._answered and len(prompts) >= _MAX_REFUSALS:
                self._stop = self._stop or partial(self._error, fault)
        elif fault.kind in _TEMPORARY and self._may_skip(ask):
            pass
        elif fault.kind in _TEMPORARY:
            chain.appendleft(ask)
            self._consecutive_failures += 1
            left = len(self._chains) + len(self._pending) + 1
            limit = max(_MAX_FAILURES, 2 * min(self.table.concurrency, left))
            if self._consecutive_failures >= limit or fault.wait > _MAX_WAIT:
                self._stop = self._stop or partial(self._error, fault)
        else:
            chain.appendleft(ask)
            self._stop = self._stop or partial(self._error, fault)
        if chain:
            self._chains.append(chain)

    def _may_skip(self, ask: Ask) -> bool:
        """Whether to leave an ask unanswered: it fails repeatedly while others succeed."""
        self._failures[ask] += 1
        again = self._failures[ask] > 1
        return self.table.skip_failing and self._answered and again

    def _finish_refused(self) -> None:
        """Emit refusals if any ask was answered; otherwise the recipe is at fault."""
        if not self._answered:
            if self._refused and not self._stop:
                self._stop = partial(self._error, self._refused[-1][1])
            return
        while self._refused:
            self._refuse(*self._refused.pop())

    def _refuse(self, ask: Ask, fault: Fault) -> None:
        finish = Finish(fault.kind)
        self.store.save_refusal(ask.requests, finish, redact(self.key, fault.reason))
        for request in ask.requests:
            self.emit(_refusal(request, finish))

    def _error(self, fault: Fault) -> TrainerError:
        return error_from(fault, self.table, self.key, self._progress())

    def _budget_spent(self) -> TrainerError:
        return budget_error(self.table, self._progress())

    def _progress(self) -> str:
        chains = [*self._chains, *self._pending.values()]
        asks = [ask for chain in chains for ask in chain]
        left = sum(len(ask.requests) for ask in asks)
        return f"Spent: {self._spending.describe()}. Missing: {left} answers."


def _is_unreadable(error: BaseException) -> bool:
    return isinstance(error, Fault) and error.kind is FaultKind.UNREADABLE


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in (tasks := list(tasks)):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _cancel_all() -> None:
    current = asyncio.current_task()
    await _cancel(task for task in asyncio.all_tasks() if task is not current)


class _EventLoopThread:
    """Runs coroutines in a background thread; `close` cancels the remaining ones."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="requests")
        self._thread.daemon = True  # a hanging request must not block the exit
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Start a coroutine. Cancelling the future cancels the coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel running coroutines, run `last`, and end the thread."""
        self.start(_cancel_all()).result()
        self.start(last).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def _sample(request: SampleRequest, reply: Reply, index: int, usage: Usage) -> Sample:
    answer = reply.answers[index]
    return Sample(
        instance_id=request.instance_id,
        sample=request.sample,
        text=answer.text,
        prompt_tokens=usage.prompt,
        completion_tokens=usage.output // len(reply.answers),
        finish=answer.finish,
    )


def _refusal(request: SampleRequest, finish: str) -> Sample:
    return Sample(request.instance_id, request.sample, "", finish=finish)
