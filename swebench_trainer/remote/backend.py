"""A backend that samples from an API and cannot train."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from swebench_trainer.contracts import SampleOnly
from swebench_trainer.recipe.models import semantic_settings
from swebench_trainer.remote.api_key import read_key
from swebench_trainer.remote.errors import error_from
from swebench_trainer.remote.response_store import ResponseStore
from swebench_trainer.remote.sampler import RemoteSampler
from swebench_trainer.remote.service import Fault, Service
from swebench_trainer.remote.spending import SpendTracker
from swebench_trainer.remote.tables import RemoteTable

TableT = TypeVar("TableT", bound=RemoteTable)

RESPONSES = "responses.jsonl"
"""Name of the file with the responses of a model."""


class RemoteBackend(SampleOnly, Generic[TableT]):
    """A `Backend` and `KeepsResponses` on top of a service.

    Args:
        table: The recipe's table.
        connect: Creates the service from the table and the key; imports the SDK.
        several: Whether one request may return all answers to a prompt.
        leads: Whether the first request for a prompt is sent before the others, so
            that they hit the service's prompt cache.
    """

    def __init__(
        self,
        table: TableT,
        connect: Callable[[TableT, str], Service],
        *,
        several: bool = False,
        leads: bool = False,
    ) -> None:
        self.name, self.use = table.name, table.use
        self._table = table
        self._connect = connect
        self._several = several
        self._leads = leads
        self._responses: Path | None = None

    def check(self) -> None:
        """Fail early, before anything is computed or paid for.

        Raises:
            PrerequisiteError: The key is missing or invalid, or a package is missing.
            RecipeError: The service does not have the model.
            StageError: The service is unavailable.
        """
        key = read_key(self._table.api_key_env)
        service = self._connect(self._table, key)
        try:
            asyncio.run(_checked(service))
        except Fault as fault:
            raise error_from(fault, self._table, key) from None

    def keep_responses(self, folder: Path) -> None:
        """See `KeepsResponses.keep_responses`."""
        self._responses = folder / RESPONSES

    def figures(self) -> Mapping[str, str | int | float]:
        """Tokens and cost of this stage's responses."""
        spending = SpendTracker(self._table, self._store())
        figures: dict[str, str | int | float] = {"tokens": spending.spent.total}
        if spending.money is not None:
            figures["cost"] = f"{spending.money:.4g}"
        return figures

    def open_sampler(self, weights: Path | None, *, batch_size: int) -> RemoteSampler:
        """Open the service. `batch_size` is ignored; see `concurrency` in its table.

        Raises:
            PluginError: `weights` are given.
            PrerequisiteError: The key or a package is missing.
        """
        if weights is not None:
            self.refuse("open trained weights")
        key = read_key(self._table.api_key_env)
        service = self._connect(self._table, key)
        if self._responses and hasattr(service, "keep_in"):
            service.keep_in(self._responses.parent)
        return RemoteSampler(
            service,
            self._table,
            key,
            self._store(),
            several=self._several,
            leads=self._leads,
        )

    def _store(self) -> ResponseStore:
        return ResponseStore(self._responses, semantic_settings(self._table))


async def _checked(service: Service) -> None:
    try:
        if hasattr(service, "check"):
            await service.check()
    finally:
        await service.close()
