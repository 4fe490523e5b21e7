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
    """`anthropic`."""
    api_key_env: Variable = "ANTHROPIC_API_KEY"
    """Environment variable with the key. The key itself stands in no file."""
    base_url: Address = ANTHROPIC
    """Address of the service."""
    cache: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = True
    """Have a prompt cached that several samples share: the first of them goes ahead, and the others read it at the price of `cached`."""
    batch: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = False
    """Send requests as Message Batches: at half the price, within a day. A run that was stopped goes on with the batches that it has sent."""
    poll: Annotated[PositiveFloat, Field(json_schema_extra={VOLATILE: True})] = 30
    """Seconds between questions whether a batch is done."""
    send: tuple[Literal["temperature", "top_p"], ...] = ()
    """Sampling settings that the model takes; many Claude models take none or one of the two."""
    body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of each request, such as `{ thinking = { type = "adaptive" } }`."""


@hookimpl
def register_backends(register: Register) -> None:
    """Claude."""

    def anthropic(table: AnthropicTable) -> Any:
        from swebench_trainer_anthropic.service import AnthropicService

        if table.batch:  # what fits into the budget goes at once
            table = table.model_copy(update={"concurrency": BATCH})
        leads = table.cache and not table.batch
        return RemoteBackend(table, AnthropicService, leads=leads)

    register(
        "anthropic",
        anthropic,
        config=AnthropicTable,
        summary="Claude, with prompt caching and Message Batches",
    )
