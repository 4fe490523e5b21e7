"""Backend `openai`: samples from any OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from swebench_trainer import hookimpl
from swebench_trainer.hookspecs import Register
from swebench_trainer.recipe.models import VOLATILE
from swebench_trainer.remote import Address, RemoteBackend, RemoteTable, Variable

OPENAI = "https://api.openai.com/v1"


class OpenAITable(RemoteTable):
    """A model behind OpenAI's chat completions API."""

    use: str = "openai"
    """Name of this backend."""
    api_key_env: Variable = "OPENAI_API_KEY"
    """Environment variable with the API key; empty if the service needs none. The key is never written to a file."""
    base_url: Address = OPENAI
    """Base URL of the service, up to `/v1`."""
    n: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = False
    """Whether to request all samples of a prompt at once, if the service supports `n`. The prompt is then billed once."""
    limit: Annotated[
        Literal["max_completion_tokens", "max_tokens"],
        Field(json_schema_extra={VOLATILE: True}),
    ] = "max_completion_tokens"
    """The service's name for `max_new_tokens`."""
    omit: tuple[Literal["temperature", "top_p", "top_k", "min_p", "seed"], ...] = ()
    """Settings that the model does not accept and that are not sent."""
    body: dict[str, JsonValue] = Field(default_factory=dict)
    """Additional fields of each request, such as `{ reasoning_effort = "low" }`."""


@hookimpl
def register_backends(register: Register) -> None:
    """Register the `openai` backend."""

    def openai(table: OpenAITable) -> Any:
        from swebench_trainer_openai.service import OpenAIService

        return RemoteBackend(table, OpenAIService, several=table.n)

    register(
        "openai",
        openai,
        config=OpenAITable,
        summary="any OpenAI-compatible endpoint: OpenAI, vLLM, SGLang, transformers serve",
    )
