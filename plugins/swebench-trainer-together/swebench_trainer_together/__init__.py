"""Backend `together`: samples from the open models that Together serves.

Together has an OpenAI-compatible API, so this is the `openai` backend with other defaults.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from swebench_trainer_openai import OpenAITable

from swebench_trainer import hookimpl
from swebench_trainer.hookspecs import Register
from swebench_trainer.recipe.models import VOLATILE
from swebench_trainer.remote import Address, RemoteBackend, Variable


class TogetherTable(OpenAITable):
    """A model served by Together, serverless or on a dedicated endpoint."""

    use: str = "together"
    """Name of this backend."""
    api_key_env: Variable = "TOGETHER_API_KEY"
    """Environment variable with the API key. The key is never written to a file."""
    base_url: Address = "https://api.together.xyz/v1"
    """Base URL of the service, up to `/v1`."""
    limit: Annotated[
        Literal["max_completion_tokens", "max_tokens"],
        Field(json_schema_extra={VOLATILE: True}),
    ] = "max_tokens"
    """The service's name for `max_new_tokens`."""


@hookimpl
def register_backends(register: Register) -> None:
    """Register the `together` backend."""

    def together(table: TogetherTable) -> Any:
        from swebench_trainer_openai.service import OpenAIService

        return RemoteBackend(table, OpenAIService, several=table.n)

    register(
        "together",
        together,
        config=TogetherTable,
        summary="open models served by Together; samples only",
    )
