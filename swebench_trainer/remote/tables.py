"""Keys that all writers behind APIs have."""

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
"""Name of an environment variable, or nothing."""
Address = Annotated[str, Field(json_schema_extra={VOLATILE: True})]
"""Where a service is: no part of fingerprints, since it may move."""


class Price(Table):
    """What a million tokens cost, in any one currency."""

    input: NonNegativeFloat
    """Of prompts."""
    output: NonNegativeFloat
    """Of answers, with what the model thinks."""
    cached: NonNegativeFloat | None = None
    """Of prompts that the service has cached; as `input` where it is not given."""
    written: NonNegativeFloat | None = None
    """Of prompts that it caches at this request; as `input` where it is not given."""

    def of(self, usage: Usage) -> float:
        """What these tokens cost."""
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.written is None else self.written
        return (
            usage.input * self.input
            + usage.cached * cached
            + usage.written * written
            + usage.output * self.output
        ) / 1e6


class Budget(Table):
    """What a writer may spend in one stage, earlier attempts included."""

    money: PositiveFloat | None = None
    """In the currency of `price`."""
    tokens: PositiveInt | None = None
    """Prompts and answers together."""


class RemoteTable(ModelTable):
    """Base of the tables of writers behind APIs."""

    name: Annotated[str, Field(min_length=1)]
    """The model, as the service calls it."""
    api_key_env: Variable
    """Environment variable with the key; empty for a service that wants none. The key itself stands in no file."""
    base_url: Address
    """Address of the service."""
    concurrency: Annotated[PositiveInt, Field(json_schema_extra={VOLATILE: True})] = 16
    """Requests at once."""
    retries: Annotated[NonNegativeInt, Field(json_schema_extra={VOLATILE: True})] = 8
    """How often a request is sent again where the service is busy (429, 5xx), does not answer in time or breaks off, with growing pauses and as late as it asks for."""
    skip_failing: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = False
    """Whether the stage ends without the answers that fail with all `retries` twice, where others come; else it stops, to be called again."""
    timeout: Annotated[PositiveFloat, Field(json_schema_extra={VOLATILE: True})] = 600
    """Seconds without a byte of the response after which a request is given up and sent again."""
    price: Annotated[Price | None, Field(json_schema_extra={VOLATILE: True})] = None
    """What a million tokens cost: `{ input = 2.5, output = 10.0, cached = 1.25 }`."""
    budget: Annotated[Budget | None, Field(json_schema_extra={VOLATILE: True})] = None
    """What the stage may spend, `{ money = 20.0, tokens = 5_000_000 }`; it stops before it would be more."""

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, value: str) -> str:
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError("must be an address such as http://localhost:8000/v1")
        if address.username or address.password or address.query:
            raise ValueError("must not hold a key: name its variable in api_key_env")
        return value

    @model_validator(mode="after")
    def _money_has_a_price(self) -> Self:
        if self.budget and self.budget.money is not None and self.price is None:
            raise ValueError("budget.money needs price, to know what is spent")
        return self
