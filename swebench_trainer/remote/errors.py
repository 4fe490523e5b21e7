"""From a fault to the error that a user reads."""

from __future__ import annotations

from swebench_trainer.errors import (
    PrerequisiteError,
    RecipeError,
    StageError,
    TrainerError,
)
from swebench_trainer.remote.api_key import hide
from swebench_trainer.remote.service import Fault
from swebench_trainer.remote.tables import RemoteTable

_KEPT = "what is there is kept and not paid for again"


def error_of(
    fault: Fault, table: RemoteTable, key: str, spent: str = ""
) -> TrainerError:
    """Why nothing more can be asked.

    Args:
        fault: What became of a request.
        table: The writer's table.
        key: The secret, to leave it out.
        spent: What was spent and what is open, where something was asked before.
    """
    said = hide(key, fault.reason)
    spent = f"\n{spent}" if spent else ""
    if fault.kind == "key":
        variable = table.api_key_env or "api_key_env, which names no variable"
        return PrerequisiteError(
            f"{who(table)} does not accept the key in {variable}: {said}{spent}",
            hint=f"Put a valid key there and run the same command again; {_KEPT}.",
        )
    if fault.kind == "credit":
        return StageError(
            f"The account at {who(table)} is empty: {said}{spent}",
            hint=f"Fill it up and run the same command again; {_KEPT}.",
        )
    if fault.kind == "model":
        return RecipeError(
            f"{who(table)}: there is no such model or address: {said}{spent}",
            hint="Look at `name` and `base_url` of the writer's table.",
        )
    if fault.kind in ("refused", "too long"):
        return RecipeError(
            f"{who(table)} refuses every request: {said}{spent}",
            hint="Look at the writer's keys: not every model takes every setting.",
        )
    wait = f" It asks to wait {fault.wait:.0f} s." if fault.wait else ""
    return StageError(
        f"{who(table)} is not to be had: {said}.{wait}{spent}",
        hint="Run the same command again later, perhaps with a lower `concurrency`; "
        f"{_KEPT}. If the same prompt fails each time: `skip_failing = true`.",
    )


def budget_spent(table: RemoteTable, spent: str) -> StageError:
    """The budget leaves no room for another request."""
    return StageError(
        f"The budget for {who(table)} leaves no room for another request.\n{spent}",
        hint=f"Raise its `budget` and run the same command again; {_KEPT}.",
    )


def who(table: RemoteTable) -> str:
    """The writer, for messages."""
    return f"{table.use} ({table.name} at {table.base_url})"
