"""Backend `openai`: candidates from any OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from swebench_trainer import hookimpl
from swebench_trainer.hookspecs import Register
from swebench_trainer.recipe.models import VOLATILE
from swebench_trainer.remote import Address, RemoteBackend, RemoteTable, Variable

OPENAI = "https://api.openai.com/v1"


class OpenAITable(RemoteTable):
    """A model behind the chat completions protocol of OpenAI."""

    use: str = "openai"
    """`openai`."""
    api_key_env: Variable = "OPENAI_API_KEY"
    """Environment variable with the key; empty for a service that wants none. The key itself stands in no file."""
    base_url: Address = OPENAI
    """Address of the service, up to `/v1`."""
    n: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = False
    """Ask for all samples of a prompt in one request, where the service offers `n`: the prompt is then read, and paid for, once."""
    limit: Annotated[
        Literal["max_completion_tokens", "max_tokens"],
        Field(json_schema_extra={VOLATILE: True}),
    ] = "max_completion_tokens"
    """What the service calls `max_new_tokens`."""
    omit: tuple[Literal["temperature", "top_p", "top_k", "min_p", "seed"], ...] = ()
    """Settings that the model does not take, and that are not sent."""
    body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of each request, such as `{ reasoning_effort = "low" }`."""


@hookimpl
def register_backends(register: Register) -> None:
    """The endpoint that `base_url` names."""

    def openai(table: OpenAITable) -> Any:
        from swebench_trainer_openai.service import OpenAIService

        return RemoteBackend(table, OpenAIService, several=table.n)

    register(
        "openai",
        openai,
        config=OpenAITable,
        summary="any OpenAI-compatible endpoint: OpenAI, vLLM, SGLang, transformers serve",
    )
