"""Has many requests answered at once, and loses none of the answers."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.errors import TrainerError
from swebench_trainer.remote.api_key import hide, hide_in
from swebench_trainer.remote.errors import budget_spent, error_of
from swebench_trainer.remote.event_loop import LoopThread
from swebench_trainer.remote.pace import Pace
from swebench_trainer.remote.response_store import KeptResponses
from swebench_trainer.remote.service import Ask, Fault, Reply, Service, Usage
from swebench_trainer.remote.spending import Meter, estimated, worst_case
from swebench_trainer.remote.tables import RemoteTable

_PATIENCE = 3
"""So many requests given up in a row are no accident of one prompt."""
_REFUSALS = 8
"""So many prompts refused before any is answered are no accident either."""
_LONG = 120
"""Seconds to wait that are asked of a person and not of a process."""


class RemoteSampler:
    """A `Sampler` that asks a service.

    Args:
        service: The API.
        table: The recipe's table.
        key: The secret, to keep it out of files and messages.
        kept: Responses of this stage, earlier attempts included.
        several: Whether one request may ask for all answers to a prompt.
        leads: Whether the first request of a prompt goes ahead of the others to it,
            which then find the prompt cached.
    """

    def __init__(
        self,
        service: Service,
        table: RemoteTable,
        key: str,
        kept: KeptResponses,
        *,
        several: bool = False,
        leads: bool = False,
    ) -> None:
        self._service = service
        self._table = table
        self._key = key
        self._kept = kept
        self._several = several
        self._leads = leads
        self._loop: LoopThread | None = None

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`. What is kept comes first, and costs nothing.

        Raises:
            PrerequisiteError: The key is wrong.
            RecipeError: There is no such model, or every request is refused.
            StageError: The budget is spent, or the service is not to be had. All
                answers that came are given before.
        """
        owed = []
        for request in requests:
            sample = self._remembered(request)
            if sample is None:
                owed.append(request)
            else:
                yield sample
        if owed:
            yield from self._asked(owed)

    def close(self) -> None:
        """Cancels what is under way and closes connections."""
        if self._loop:
            self._loop.close(self._service.close())
            self._loop = None
        self._kept.close()

    def _remembered(self, request: SampleRequest) -> Sample | None:
        found = self._kept.find(request)
        if found is None:
            return None
        if "refused" in found.row:
            return _refusal(request, found.row["finish"])
        try:
            reply = self._service.read(found.row["response"])
        except Fault as fault:  # read otherwise than when it was kept: a refusal
            return _refusal(request, fault.kind)
        return _sample(request, reply, found.place, Usage(**found.row["usage"]))

    def _asked(self, owed: Sequence[SampleRequest]) -> Iterator[Sample]:
        samples: SimpleQueue[Sample | None] = SimpleQueue()
        asks = grouped(owed, several=self._several, leads=self._leads)
        work = _Work(self._service, self._table, self._key, self._kept, samples.put)
        self._loop = self._loop or LoopThread()
        done = self._loop.start(work.run(asks))
        done.add_done_callback(lambda _: samples.put(None))
        try:
            while (sample := samples.get()) is not None:
                yield sample
            done.result()
        finally:
            done.cancel()


def grouped(
    requests: Iterable[SampleRequest], *, several: bool, leads: bool
) -> list[list[Ask]]:
    """Requests as asks, those to one prompt in a list, the one to send first in front.

    Args:
        requests: In the order in which they are to be sent.
        several: Whether an ask may hold all requests that differ in `sample` alone.
        leads: Whether the others of a prompt wait for the first.
    """
    alike: dict[Any, list[SampleRequest]] = {}
    for request in requests:
        settings = {**vars(request), "sample": None, "seed": None}
        alike.setdefault(tuple(settings.values()), []).append(request)
    prompts: dict[tuple[str, str], list[Ask]] = {}
    for group in alike.values():
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


@dataclass
class _Work:
    """One call of `sample`: what is to be asked, what is under way, why to stop."""

    service: Service
    table: RemoteTable
    key: str
    kept: KeptResponses
    give: Callable[[Sample], None]
    _chains: deque[deque[Ask]] = field(default_factory=deque)
    _under_way: dict[asyncio.Task[Reply], deque[Ask]] = field(default_factory=dict)
    _done: asyncio.Queue[asyncio.Task[Reply]] = field(default_factory=asyncio.Queue)
    _refused: list[tuple[Ask, Fault]] = field(default_factory=list)
    _failed: Counter[Ask] = field(default_factory=Counter)
    _given_up: int = 0
    _stop: Callable[[], TrainerError] | None = None

    def __post_init__(self) -> None:
        self._meter = Meter(self.table.price, self.table.budget, self.kept.usage)
        self._answered = self.kept.answered

    async def run(self, chains: Iterable[Iterable[Ask]]) -> None:
        """Sends everything, at most `concurrency` at once.

        Raises:
            TrainerError: Why it has stopped; what came until then has been given.
        """
        self._chains.extend(map(deque, chains))
        clock = asyncio.get_running_loop().time
        pace = Pace(self.table.concurrency, clock())
        try:
            while await self._start(lambda: pace.wait(clock())):
                task = await self._done.get()
                self._settle(task, self._under_way.pop(task))
        finally:
            await _cancelled(self._under_way)
        self._settle_refused()
        if self._stop:
            raise self._stop()

    async def _start(self, pause: Callable[[], float]) -> bool:
        """Sends what there is room and money for; whether anything is under way."""
        while self._chains and not self._stop:
            ask = self._chains[0][0]
            if len(self._under_way) >= self.table.concurrency:
                break
            if not self._meter.fits(ask):
                if not self._under_way:
                    self._stop = self._budget_spent
                break
            if seconds := pause():
                await asyncio.sleep(seconds)
            self._meter.begin(ask)
            chain = self._chains.popleft()
            task = asyncio.create_task(self._ask(ask))
            task.add_done_callback(self._done.put_nowait)
            self._under_way[task] = chain
        return bool(self._under_way)

    async def _ask(self, ask: Ask) -> Reply:
        """Sends a request, again if its response cannot be read and there is money left."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda e: _is_spoilt(e) and self._meter.holds),
            wait=wait_random_exponential(multiplier=0.5, max=8),
            stop=stop_after_attempt(self.table.retries + 1),
            reraise=True,
        ):
            with attempt:
                return await self._ask_once(ask)
        raise AssertionError("unreachable: the last attempt raises")

    async def _ask_once(self, ask: Ask) -> Reply:
        response = hide_in(self.key, await self.service.ask(ask))
        try:
            reply = self.service.read(response)
        except Exception as error:  # a plugin's mistake too: the response was paid for
            if not isinstance(error, Fault) or error.kind == "spoilt":
                # What it has used is in what cannot be read.
                self.kept.spoil(ask.first, worst_case(ask), response)
                self._meter.spent = self.kept.usage
            raise
        texts = [answer.text for answer in reply.answers]
        usage = reply.usage or estimated(ask, texts)
        self.kept.keep(ask.requests[: len(reply.answers)], usage, response)
        return Reply(reply.answers, usage)

    def _settle(self, task: asyncio.Task[Reply], chain: deque[Ask]) -> None:
        """Gives what a request brought; the rest of its prompt may go now."""
        ask = chain.popleft()
        self._meter.end(ask)
        self._meter.spent = self.kept.usage
        try:
            reply = task.result()
        except Fault as fault:
            self._fail(ask, chain, fault)
            return
        self._given_up, self._answered = 0, True
        for place, request in enumerate(ask.requests[: len(reply.answers)]):
            self.give(_sample(request, reply, place, reply.usage or Usage()))
        if rest := ask.requests[len(reply.answers) :]:
            chain.appendleft(Ask(rest, ask.shared))
        # In front, while the prompt is in the service's cache.
        self._chains.extendleft(deque([ask]) for ask in reversed(chain))

    def _fail(self, ask: Ask, chain: deque[Ask], fault: Fault) -> None:
        """Decides what one request without an answer means for it and for all."""
        if fault.kind == "too long":
            self._refuse(ask, fault)
        elif fault.kind == "refused":
            self._refused.append((ask, fault))
            prompts = {refused.first.instance_id for refused, _ in self._refused}
            if not self._answered and len(prompts) >= _REFUSALS:
                self._stop = self._stop or partial(self._error, fault)
        elif fault.kind in ("busy", "spoilt") and self._is_hopeless(ask):
            pass  # left without an answer
        elif fault.kind in ("busy", "spoilt"):
            chain.appendleft(ask)
            self._given_up += 1
            left = len(self._chains) + len(self._under_way) + 1
            in_a_row = max(_PATIENCE, 2 * min(self.table.concurrency, left))
            if self._given_up >= in_a_row or fault.wait > _LONG:
                self._stop = self._stop or partial(self._error, fault)
        else:
            chain.appendleft(ask)
            self._stop = self._stop or partial(self._error, fault)
        if chain:  # behind all others
            self._chains.append(chain)

    def _is_hopeless(self, ask: Ask) -> bool:
        """Whether to go on without an answer: it fails again, where others are answered."""
        self._failed[ask] += 1
        again = self._failed[ask] > 1
        return self.table.skip_failing and self._answered and again

    def _settle_refused(self) -> None:
        """Refusals count once something was answered: else the request is wrong."""
        if not self._answered:
            if self._refused and not self._stop:
                self._stop = partial(self._error, self._refused[-1][1])
            return
        while self._refused:
            self._refuse(*self._refused.pop())

    def _refuse(self, ask: Ask, fault: Fault) -> None:
        finish = fault.kind
        self.kept.refuse(ask.requests, finish, hide(self.key, fault.reason))
        for request in ask.requests:
            self.give(_refusal(request, finish))

    def _error(self, fault: Fault) -> TrainerError:
        return error_of(fault, self.table, self.key, self._so_far())

    def _budget_spent(self) -> TrainerError:
        return budget_spent(self.table, self._so_far())

    def _so_far(self) -> str:
        chains = [*self._chains, *self._under_way.values()]
        asks = [ask for chain in chains for ask in chain]
        left = sum(len(ask.requests) for ask in asks)
        return f"Spent: {self._meter.words()}. Still open: {left} answers."


def _is_spoilt(error: BaseException) -> bool:
    return isinstance(error, Fault) and error.kind == "spoilt"


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in (tasks := list(tasks)):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _sample(request: SampleRequest, reply: Reply, place: int, usage: Usage) -> Sample:
    answer = reply.answers[place]
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
