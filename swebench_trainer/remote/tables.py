"""Recipe keys shared by all backends that sample from an API."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from swebench_trainer.recipe.models import VOLATILE, ModelTable, Table
from swebench_trainer.remote.service import Usage

Variable = Annotated[
    str,
    Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", json_schema_extra={VOLATILE: True}),
]
"""Name of an environment variable, or empty."""
Address = Annotated[str, Field(json_schema_extra={VOLATILE: True})]
"""Address of a service; not part of fingerprints, because it may change."""


class Price(Table):
    """Price of a million tokens, in any currency."""

    input: NonNegativeFloat
    """Price of prompt tokens."""
    output: NonNegativeFloat
    """Price of answer tokens, including reasoning."""
    cached: NonNegativeFloat | None = None
    """Price of prompt tokens read from the cache; defaults to `input`."""
    written: NonNegativeFloat | None = None
    """Price of prompt tokens written to the cache; defaults to `input`."""

    def of(self, usage: Usage) -> float:
        """The cost of these tokens."""
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.written is None else self.written
        return (
            usage.input * self.input
            + usage.cached * cached
            + usage.written * written
            + usage.output * self.output
        ) / 1e6


class Budget(Table):
    """Spending limit of a model in one stage, including earlier attempts."""

    money: PositiveFloat | None = None
    """Maximum cost in the currency of `price`."""
    tokens: PositiveInt | None = None
    """Maximum tokens of prompts and answers."""


class RemoteTable(ModelTable):
    """Base of the tables of backends that sample from an API."""

    name: Annotated[str, Field(min_length=1)]
    """Model name at the service."""
    api_key_env: Variable
    """Environment variable with the API key; empty if the service needs none. The key is never written to a file."""
    base_url: Address
    """Address of the service."""
    concurrency: Annotated[PositiveInt, Field(json_schema_extra={VOLATILE: True})] = 16
    """Maximum number of concurrent requests."""
    retries: Annotated[NonNegativeInt, Field(json_schema_extra={VOLATILE: True})] = 8
    """Maximum retries of a request after 429, 5xx, a timeout or a broken connection, with exponential backoff and Retry-After."""
    skip_failing: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = False
    """Whether to skip answers whose requests exhaust their `retries` twice while others succeed. Otherwise the stage stops and can be resumed."""
    timeout: Annotated[PositiveFloat, Field(json_schema_extra={VOLATILE: True})] = 600
    """Seconds without a byte of the response until a request is canceled and retried."""
    price: Annotated[Price | None, Field(json_schema_extra={VOLATILE: True})] = None
    """Price of a million tokens: `{ input = 2.5, output = 10.0, cached = 1.25 }`."""
    budget: Annotated[Budget | None, Field(json_schema_extra={VOLATILE: True})] = None
    """Spending limit of the stage: `{ money = 20.0, tokens = 5_000_000 }`. It stops before exceeding it."""

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, value: str) -> str:
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError("must be an address such as http://localhost:8000/v1")
        if address.username or address.password or address.query:
            raise ValueError("must not contain a key; set its variable in api_key_env")
        return value

    @model_validator(mode="after")
    def _money_has_a_price(self) -> Self:
        if self.budget and self.budget.money is not None and self.price is None:
            raise ValueError("budget.money requires price")
        return self
