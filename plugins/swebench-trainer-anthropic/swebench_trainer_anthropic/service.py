"""The Messages API, through the `anthropic` SDK and its retries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.remote import (
    Answer,
    Ask,
    Fault,
    FaultKind,
    Reply,
    Usage,
    digest,
    fault_of_status,
    parsed,
    seconds_of,
)
from swebench_trainer.types import Finish
from swebench_trainer_anthropic import ANTHROPIC, AnthropicTable
from swebench_trainer_anthropic.batches import Batches

_FINISH = {
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,
    "refusal": Finish.REFUSED,
}


class AnthropicService:
    """A `Service` of `swebench_trainer.remote`.

    Args:
        table: The recipe's table.
        key: The API key; empty if the service needs none.

    Raises:
        PrerequisiteError: The SDK is not installed.
    """

    def __init__(self, table: AnthropicTable, key: str) -> None:
        try:
            import anthropic
        except ImportError as error:
            raise PrerequisiteError(
                f"The anthropic backend needs the package anthropic: {error}.",
                hint="pip install swebench-trainer-anthropic",
            ) from error
        self._table = table
        self._errors = anthropic
        self._client = anthropic.AsyncAnthropic(
            api_key=key or "none",
            base_url=table.base_url,
            max_retries=table.retries,
            timeout=table.timeout,
        )
        self._batches = Batches(self._client.messages.batches, table.poll, self.fault)

    def keep_in(self, folder: Path) -> None:
        """See `Service`. Stores the ids of sent batches."""
        self._batches.keep_in(folder)

    async def ask(self, ask: Ask) -> dict[str, Any]:
        """See `Service.ask`."""
        request, more = self._request(ask)
        if self._table.batch:
            whole = {**request, **more}
            name = digest([ask.first.instance_id, ask.first.sample, whole])
            return await self._batches.ask(name, whole)
        messages = self._client.messages.with_raw_response
        try:
            response = await messages.create(**request, extra_body=more or None)
        except self._errors.APIError as error:
            raise self.fault(error) from None
        return parsed(await response.text())

    def _request(self, ask: Ask) -> tuple[dict[str, Any], dict[str, Any]]:
        """The request fields for the SDK, and the additional ones."""
        first = ask.first
        prompt: dict[str, Any] = {"type": "text", "text": first.prompt}
        if ask.shared:
            prompt["cache_control"] = {"type": "ephemeral"}
        request = {
            "model": self._table.name,
            "max_tokens": first.max_new_tokens,
            "messages": [{"role": "user", "content": [prompt]}],
        }
        settings = {"temperature": min(first.temperature, 1.0), "top_p": first.top_p}
        sent: dict[str, Any] = {name: settings[name] for name in self._table.send}
        return request, {**sent, **self._table.body}

    def read(self, response: dict[str, Any]) -> Reply:
        """See `Service.read`."""
        try:
            blocks = [b for b in response["content"] if b["type"] == "text"]
            text = "".join(str(block["text"]) for block in blocks)
            finish = _FINISH.get(response["stop_reason"], "")
            usage = _usage(response.get("usage"))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Fault(
                FaultKind.UNREADABLE, f"not a message: {str(response)[:200]}"
            ) from None
        return Reply((Answer(text, finish),), usage)

    async def check(self) -> None:
        """Request the model's description, which is free.

        Raises:
            Fault: The key is invalid, the service is unavailable, or it does not have
                the model.
        """
        client = self._client.with_options(max_retries=min(2, self._table.retries))
        try:
            await client.models.retrieve(self._table.name)
        except self._errors.APIStatusError as error:
            known = (401, 404) if self._table.base_url == ANTHROPIC else (401,)
            if error.status_code in known:
                raise self.fault(error) from None
        except self._errors.APIError as error:
            raise self.fault(error) from None

    async def close(self) -> None:
        """See `Service.close`. Sent batches continue at the service."""
        await self._batches.close()
        await self._client.close()

    def fault(self, error: Exception) -> Fault:
        """The fault for an error of the SDK."""
        if not isinstance(error, self._errors.APIStatusError):
            cause = error.__cause__ or error
            return Fault(FaultKind.BUSY, f"{error} ({type(cause).__name__})")
        return fault_of_status(
            error.status_code,
            error.api_message or error.message,
            code=error.type or "",
            wait=seconds_of(error.response.headers.get("retry-after", "")),
        )


def _usage(usage: Any) -> Usage | None:
    """`None` if the format is unknown; the answer is still valid."""
    try:
        return Usage(
            input=int(usage["input_tokens"]),
            cached=int(usage.get("cache_read_input_tokens") or 0),
            written=int(usage.get("cache_creation_input_tokens") or 0),
            output=int(usage["output_tokens"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
