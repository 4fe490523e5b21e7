"""Backend `anthropic`: candidates from Claude."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PositiveFloat

from swebench_trainer import hookimpl
from swebench_trainer.hookspecs import Register
from swebench_trainer.recipe.models import VOLATILE
from swebench_trainer.remote import Address, RemoteBackend, RemoteTable, Variable

ANTHROPIC = "https://api.anthropic.com"
BATCH = 10_000
"""Requests in one batch at most; the service takes ten times as many."""


class AnthropicTable(RemoteTable):
    """A Claude model, by the Messages API."""

    use: str = "anthropic"
    """Name of this backend."""
    api_key_env: Variable = "ANTHROPIC_API_KEY"
    """Environment variable with the API key. The key is never written to a file."""
    base_url: Address = ANTHROPIC
    """Base URL of the service."""
    cache: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = True
    """Whether to cache prompts with several samples. The first sample is requested before the others, which then cost the price of `cached`."""
    batch: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = False
    """Whether to send Message Batches, at half the price and within a day. A stopped run resumes waiting for its batches."""
    poll: Annotated[PositiveFloat, Field(json_schema_extra={VOLATILE: True})] = 30
    """Seconds between checks of a batch."""
    send: tuple[Literal["temperature", "top_p"], ...] = ()
    """Sampling settings to send; many Claude models accept only one of them or none."""
    body: dict[str, JsonValue] = Field(default_factory=dict)
    """Additional fields of each request, such as `{ thinking = { type = "adaptive" } }`."""


@hookimpl
def register_backends(register: Register) -> None:
    """Register the `anthropic` backend."""

    def anthropic(table: AnthropicTable) -> Any:
        from swebench_trainer_anthropic.service import AnthropicService

        if table.batch:  # send everything within the budget at once
            table = table.model_copy(update={"concurrency": BATCH})
        leads = table.cache and not table.batch
        return RemoteBackend(table, AnthropicService, leads=leads)

    register(
        "anthropic",
        anthropic,
        config=AnthropicTable,
        summary="Claude, with prompt caching and Message Batches",
    )
