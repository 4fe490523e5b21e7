"""`swebench-train merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from swebench_trainer.reporting.console import open_console, print_line
from swebench_trainer.training.models.merge import find_trained, merge


def execute(
    trained: Path,
    out: Path,
    base: Literal["bf16", "dequantized"] | None,
    model: str | None,
) -> None:
    """Merges an adapter into its base model, and compares it with the trained model.

    Args:
        trained: A run directory, or an adapter directory.
        out: Directory to create.
        base: Base weights to merge into; by default the ones it was trained on.
        model: Base model, if it has moved since training.
    """
    console = open_console()
    found = find_trained(trained, model)
    merged = merge(found, out, base, lambda text: print_line(console, text))
    print_line(
        console,
        f"{out}: adapter merged into {merged.base}; predicts the same next token as "
        f"the model as trained for {merged.agreement:.1%} of a sample text",
    )
