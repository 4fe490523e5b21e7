"""The chat completions API, through the `openai` SDK and its retries."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.remote import (
    Answer,
    Ask,
    Fault,
    FaultKind,
    Reply,
    Usage,
    fault_of_status,
    parsed,
    seconds_of,
)
from swebench_trainer.types import Finish
from swebench_trainer_openai import OPENAI, OpenAITable

if TYPE_CHECKING:
    from openai import APIError

_FINISH = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "content_filter": Finish.REFUSED,
}


class OpenAIService:
    """A `Service` of `swebench_trainer.remote`.

    Args:
        table: The recipe's table.
        key: The API key; empty if the service needs none.

    Raises:
        PrerequisiteError: The SDK is not installed.
    """

    def __init__(self, table: OpenAITable, key: str) -> None:
        try:
            import openai
        except ImportError as error:
            raise PrerequisiteError(
                f"The {table.use} backend needs the package openai: {error}.",
                hint=f"pip install swebench-trainer-{table.use}",
            ) from error
        self._table = table
        self._errors = openai
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=table.base_url,
            max_retries=table.retries,
            timeout=table.timeout,
        )

    async def ask(self, ask: Ask) -> dict[str, Any]:
        """See `Service.ask`."""
        # `chat.completions.create` validates its forty fields and parses the response
        # into models, which costs a fifth of the SDK's time.
        try:
            text = await self._client.post(
                "/chat/completions", body=self._request(ask), cast_to=str
            )
        except self._errors.APIError as error:
            raise self._fault(error) from None
        return parsed(text)

    def _request(self, ask: Ask) -> dict[str, Any]:
        request = ask.first
        settings: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed % 2**31,  # some services reject more bits
        }
        for name in ("top_k", "min_p"):  # not in OpenAI's API, so only if set
            if value := getattr(request, name, 0):
                settings[name] = value
        sent = {k: v for k, v in settings.items() if k not in self._table.omit}
        if len(ask.requests) > 1:
            sent["n"] = len(ask.requests)
        return {
            "model": self._table.name,
            "messages": [{"role": "user", "content": request.prompt}],
            self._table.limit: request.max_new_tokens,
            **sent,
            **self._table.body,
        }

    def read(self, response: dict[str, Any]) -> Reply:
        """See `Service.read`."""
        try:
            choices = sorted(response["choices"], key=lambda c: c.get("index") or 0)
            answers = tuple(_answer(c) for c in choices if not _is_broken(c))
            usage = _usage(response.get("usage"))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Fault(
                FaultKind.UNREADABLE, f"no completion: {str(response)[:200]}"
            ) from None
        if not answers:
            raise Fault(
                FaultKind.UNREADABLE, f"no answer in the completion: {choices!s:.200}"
            )
        return Reply(answers, usage)

    async def check(self) -> None:
        """Request the list of models, which is free.

        Raises:
            Fault: The key is invalid, the service is unavailable, or OpenAI does not
                have the model.
        """
        client = self._client.with_options(max_retries=min(2, self._table.retries))
        try:
            text = await client.get("/models", cast_to=str)
        except self._errors.APIStatusError as error:
            # Some services have no such list, or not for every key.
            if error.status_code == 401:
                raise self._fault(error) from None
            return
        except self._errors.APIError as error:
            raise self._fault(error) from None
        if text.lstrip().startswith("<"):
            raise Fault(
                FaultKind.MODEL, "the address returns a web page; is /v1 missing?"
            )
        if self._table.base_url == OPENAI:
            self._require_name(parsed(text))

    def _require_name(self, models: Mapping[str, Any]) -> None:
        names = [model["id"] for model in models.get("data") or ()]
        if self._table.name not in names:
            close = difflib.get_close_matches(self._table.name, names, 3)
            similar = f"; similar: {', '.join(close)}" if close else ""
            raise Fault(
                FaultKind.MODEL, f"{self._table.name} is not in its models{similar}"
            )

    async def close(self) -> None:
        """See `Service.close`."""
        await self._client.close()

    def _fault(self, error: APIError) -> Fault:
        if not isinstance(error, self._errors.APIStatusError):
            cause = error.__cause__ or error
            return Fault(FaultKind.BUSY, f"{error.message} ({type(cause).__name__})")
        body = error.body if isinstance(error.body, Mapping) else {}
        reason = str(body.get("message") or error.message)
        wait = seconds_of(error.response.headers.get("retry-after", ""))
        code = error.code or ""
        return fault_of_status(error.status_code, reason, code=code, wait=wait)


def _is_broken(choice: Mapping[str, Any]) -> bool:
    """Whether a router reports that its own provider failed."""
    return bool(choice.get("error")) or choice.get("finish_reason") in (
        "error",
        "abort",
    )


def _answer(choice: Mapping[str, Any]) -> Answer:
    message = choice["message"]
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("content is not a string")
    finish = _FINISH.get(choice.get("finish_reason") or "", "")
    return Answer(text, Finish.REFUSED if message.get("refusal") else finish)


def _usage(usage: Any) -> Usage | None:
    """`None` if the format is unknown; the answers are still valid."""
    try:
        details = usage.get("prompt_tokens_details")
        cached = int((details or {}).get("cached_tokens") or 0)
        read, written = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return Usage(input=read - cached, cached=cached, output=written)
