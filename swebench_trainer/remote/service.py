"""One request to an API, its answer, and the ways in which it fails."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol

from swebench_trainer.contracts import SampleRequest

FaultKind = Literal["key", "credit", "model", "refused", "too long", "busy", "spoilt"]


class Fault(Exception):
    """Why a request has no answer.

    Args:
        kind: `key`: it is wrong, or may not do this. `credit`: the account is empty.
            `model`: there is none of that name at that address. `refused`: this prompt
            will never be answered; `too long`, because it leaves no room. `busy`: it
            could be answered later; who raises this has retried already. `spoilt`: the
            response cannot be read.
        reason: What the service said, for people.
        wait: Seconds that the service asked to wait, where it did.
    """

    def __init__(self, kind: FaultKind, reason: str, *, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.wait = wait


@dataclass(frozen=True)
class Ask:
    """What goes into one request: a prompt, and how many answers to it.

    Attributes:
        requests: One, or several that differ in `sample` and `seed` alone.
        shared: Whether other asks have the same prompt, so that it is worth caching.
            They are sent after this one has been answered.
    """

    requests: tuple[SampleRequest, ...]
    shared: bool = False

    @property
    def first(self) -> SampleRequest:
        """The prompt and the settings of all of them; the seed is the first one's."""
        return self.requests[0]


@dataclass(frozen=True)
class Usage:
    """Tokens of a request, each counted once.

    Attributes:
        input: Read at full price.
        cached: Read from the service's cache.
        written: Read, and written to the service's cache.
        output: Written by the model, over all answers.
    """

    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return self.input + self.cached + self.written

    @property
    def total(self) -> int:
        """All tokens."""
        return self.prompt + self.output

    def __add__(self, other: Usage) -> Usage:
        counts = (
            getattr(self, spec.name) + getattr(other, spec.name)
            for spec in dataclasses.fields(self)
        )
        return Usage(*counts)

    def __sub__(self, other: Usage) -> Usage:
        return self + Usage(*(-count for count in dataclasses.astuple(other)))


@dataclass(frozen=True)
class Answer:
    """One of the texts in a response.

    Attributes:
        finish: As `Sample.finish`.
    """

    text: str
    finish: str = ""


@dataclass(frozen=True)
class Reply:
    """A response as the sampler understands it.

    Attributes:
        answers: For the requests of the ask, in their order. There may be fewer, and
            the rest are asked for again; there is one at least.
        usage: `None` where the service does not say; it is then estimated.
    """

    answers: tuple[Answer, ...]
    usage: Usage | None = None


class Service(Protocol):
    """An API: sends one request and reads its response.

    It is used in one event loop, not the caller's. A service may also have a coroutine
    `check()`, which is awaited before the run and raises `Fault` where it can tell
    early that nothing will work, and a method `keep_in(folder)`, which is called before
    the first `ask` with a directory of the stage, for what it must remember there.
    """

    async def ask(self, ask: Ask) -> dict[str, Any]:
        """Sends a request, with retries where the service is busy.

        Returns:
            The response's JSON, as it came. It is kept before it is read.

        Raises:
            Fault: There is none.
        """

    def read(self, response: dict[str, Any]) -> Reply:
        """Reads a response, a new one or one that was kept.

        Raises:
            Fault: It holds no answer, or the service's word that there will be none.
        """

    async def close(self) -> None:
        """Closes connections."""


def parsed(text: str) -> dict[str, Any]:
    """The JSON of a response; what is none is kept whole, for `read` to refuse it."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"unreadable": text}


def seconds_of(header: str) -> float:
    """What `Retry-After` says: seconds, or a date; 0 where it says nothing."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())


_TOO_LONG = (
    "context_length_exceeded",
    "maximum context length",
    "prompt is too long",
    "string_above_max_length",
    "exceeds the available context size",
    "exceed context limit",
    "input is too long",
)
_MODERATED = ("moderation", "flagged", "content policy", "safety system")
_NO_CREDIT = ("insufficient_quota", "credit balance is too low", "billing_hard_limit")


def fault_of_status(
    status: int, reason: str, *, code: str = "", wait: float = 0.0
) -> Fault:
    """The fault behind a status that is not 2xx, as most vendors use them.

    Args:
        status: HTTP status.
        reason: The error's message.
        code: The error's code, where the body has one.
        wait: Seconds of `Retry-After`.
    """
    said = f"{code} {reason}".lower()
    kind: FaultKind = "refused"
    if status == 402 or any(words in said for words in _NO_CREDIT):
        kind = "credit"
    elif status == 403 and any(words in said for words in _MODERATED):
        kind = "refused"
    elif status in (401, 403):
        kind = "key"
    elif status == 404 or "model_not_found" in said:
        kind = "model"
    elif status in (408, 409, 425, 429) or status >= 500:
        kind = "busy"
    elif status == 413 or any(words in said for words in _TOO_LONG):
        kind = "too long"
    return Fault(kind, f"{reason} (status {status})", wait=wait)
