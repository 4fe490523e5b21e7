"""One request to an API, its response, and its faults."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from operator import add, sub
from typing import Any, Protocol

from swebench_trainer.contracts import SampleRequest


class FaultKind(StrEnum):
    """Why a request has no answer."""

    KEY = "key"
    """The key is invalid or lacks a permission."""
    CREDIT = "credit"
    """The account has no credit."""
    MODEL = "model"
    """The model does not exist at this address."""
    REFUSED = "refused"
    """The service will never answer this prompt."""
    TOO_LONG = "too long"
    """The prompt leaves no room for an answer."""
    BUSY = "busy"
    """A later request may succeed; all retries are used up."""
    UNREADABLE = "spoilt"
    """The response is not in the expected format."""


class Fault(Exception):
    """Why a request has no answer.

    Args:
        kind: A `FaultKind` or its value.
        reason: Message of the service, for people.
        wait: Seconds of the service's `Retry-After`; 0 if it gave none.
    """

    def __init__(
        self, kind: FaultKind | str, reason: str, *, wait: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.kind = FaultKind(kind)
        self.reason = reason
        self.wait = wait


@dataclass(frozen=True)
class Ask:
    """One API request: a prompt and the number of answers to it.

    Attributes:
        requests: One request, or several that differ only in `sample` and `seed`.
        shared: Whether other asks have the same prompt, so that caching it pays off.
            They are sent after this one is answered.
    """

    requests: tuple[SampleRequest, ...]
    shared: bool = False

    @property
    def first(self) -> SampleRequest:
        """The first request, with the prompt and settings of all of them."""
        return self.requests[0]


@dataclass(frozen=True)
class Usage:
    """Tokens of a request, each counted once.

    Attributes:
        input: Prompt tokens at full price.
        cached: Prompt tokens read from the service's cache.
        written: Prompt tokens written to the service's cache.
        output: Tokens of all answers.
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
        return Usage(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*map(sub, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Answer:
    """One answer in a response.

    Attributes:
        finish: See `Sample.finish`.
    """

    text: str
    finish: str = ""


@dataclass(frozen=True)
class Reply:
    """A parsed response.

    Attributes:
        answers: At least one answer, for the requests of the ask in order. Missing
            answers are requested again.
        usage: `None` if the service reports none; it is then estimated.
    """

    answers: tuple[Answer, ...]
    usage: Usage | None = None


class Service(Protocol):
    """An API: sends one request and reads its response.

    It runs in one background event loop. Optional methods: a coroutine `check()`,
    awaited before the run, raises `Fault` if no request can succeed; `keep_in(folder)`,
    called before the first `ask`, receives a directory of the stage for its state.
    """

    async def ask(self, ask: Ask) -> dict[str, Any]:
        """Send a request, with retries if the service is busy.

        Returns:
            The raw JSON response. It is stored before `read`.

        Raises:
            Fault: The request failed.
        """

    def read(self, response: dict[str, Any]) -> Reply:
        """Read a new or stored response.

        Raises:
            Fault: It has no answer, or it is a refusal.
        """

    async def close(self) -> None:
        """Close connections."""


def parsed(text: str) -> dict[str, Any]:
    """The JSON object of a response; other texts are wrapped, and `read` rejects them."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"unreadable": text}


def seconds_of(header: str) -> float:
    """Seconds of a `Retry-After` header, which may be a date; 0 if missing or invalid."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())


# Error codes and messages of vendors: HTTP statuses do not distinguish these cases.
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
    """The fault for an HTTP status other than 2xx, by the conventions of most vendors.

    Args:
        status: HTTP status.
        reason: Error message of the service.
        code: Error code of the service, if any.
        wait: Seconds of `Retry-After`.
    """
    text = f"{code} {reason}".lower()
    kind = FaultKind.REFUSED
    if status == 402 or any(phrase in text for phrase in _NO_CREDIT):
        kind = FaultKind.CREDIT
    elif status == 403 and any(phrase in text for phrase in _MODERATED):
        kind = FaultKind.REFUSED
    elif status in (401, 403):
        kind = FaultKind.KEY
    elif status == 404 or "model_not_found" in text:
        kind = FaultKind.MODEL
    elif status in (408, 409, 425, 429) or status >= 500:
        kind = FaultKind.BUSY
    elif status == 413 or any(phrase in text for phrase in _TOO_LONG):
        kind = FaultKind.TOO_LONG
    return Fault(kind, f"{reason} (status {status})", wait=wait)
