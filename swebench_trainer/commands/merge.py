"""`swebench-train merge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from swebench_trainer.reporting.console import open_console, print_line
from swebench_trainer.training.models.merge import Drift, find_trained, merge

if TYPE_CHECKING:
    from rich.table import Table


def execute(
    trained: Path,
    out: Path,
    base: Literal["bf16", "dequantized"] | None,
    model: str | None,
) -> None:
    """Merges an adapter into its base model, and prints how far the result drifted.

    Args:
        trained: A run directory, or an adapter directory.
        out: Directory to create.
        base: Base weights to merge into; by default the ones it was trained on.
        model: Base model, if it has moved since training.
    """
    console = open_console()
    found = find_trained(trained, model)
    drifts = merge(found, out, base, lambda text: print_line(console, text))
    console.print(drift_table(drifts))
    print_line(console, f"{out}: adapter merged into {drifts[-1].way}")


def drift_table(drifts: Sequence[Drift]) -> Table:
    """How far each merged model is from base and adapter as they were trained."""
    from rich.table import Table

    title = f"logits vs. base and adapter as trained, {drifts[-1].tokens} tokens"
    table = Table("merged into", title=title)
    for name in ("largest", "mean", "KL, nats", "same next token"):
        table.add_column(name, justify="right")
    for drift in drifts:
        table.add_row(
            drift.way,
            f"{drift.largest:.3g}",
            f"{drift.mean:.3g}",
            f"{drift.divergence:.3g}",
            f"{drift.agreement:.1%}",
        )
    return table
