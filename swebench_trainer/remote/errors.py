"""Faults of a service as errors for the user."""

from __future__ import annotations

from swebench_trainer.errors import (
    PrerequisiteError,
    RecipeError,
    StageError,
    TrainerError,
)
from swebench_trainer.remote.api_key import redact
from swebench_trainer.remote.service import Fault, FaultKind
from swebench_trainer.remote.tables import RemoteTable

_KEPT = "responses so far are kept and not paid for again"


def error_from(
    fault: Fault, table: RemoteTable, key: str, spent: str = ""
) -> TrainerError:
    """The error that stops sampling.

    Args:
        fault: The fault of a request.
        table: Table of the backend.
        key: The API key, to redact it.
        spent: Spending and open requests, if any request was sent before.
    """
    reason = redact(key, fault.reason)
    spent = f"\n{spent}" if spent else ""
    if fault.kind is FaultKind.KEY:
        variable = table.api_key_env or "api_key_env (empty)"
        return PrerequisiteError(
            f"{service_name(table)} rejected the key in {variable}: {reason}{spent}",
            hint=f"Set a valid key and run the same command again; {_KEPT}.",
        )
    if fault.kind is FaultKind.CREDIT:
        return StageError(
            f"The account at {service_name(table)} has no credit: {reason}{spent}",
            hint=f"Add credit and run the same command again; {_KEPT}.",
        )
    if fault.kind is FaultKind.MODEL:
        return RecipeError(
            f"{service_name(table)} has no such model or address: {reason}{spent}",
            hint="Check `name` and `base_url` in the model's table.",
        )
    if fault.kind in (FaultKind.REFUSED, FaultKind.TOO_LONG):
        return RecipeError(
            f"{service_name(table)} refuses every request: {reason}{spent}",
            hint="Check the keys of the model's table; some models reject some settings.",
        )
    wait = f" Its Retry-After is {fault.wait:.0f} s." if fault.wait else ""
    return StageError(
        f"{service_name(table)} is unavailable: {reason}.{wait}{spent}",
        hint="Run the same command again later, perhaps with a lower `concurrency`; "
        f"{_KEPT}. If one prompt always fails, set `skip_failing = true`.",
    )


def budget_error(table: RemoteTable, spent: str) -> StageError:
    """The error for an exhausted budget."""
    return StageError(
        f"The budget for {service_name(table)} does not cover another request.\n{spent}",
        hint=f"Raise `budget` and run the same command again; {_KEPT}.",
    )


def service_name(table: RemoteTable) -> str:
    """The backend, model and address, for messages."""
    return f"{table.use} ({table.name} at {table.base_url})"
