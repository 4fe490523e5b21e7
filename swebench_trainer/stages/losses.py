"""What a training stage says of its losses."""

from __future__ import annotations

from swebench_trainer.stages import Figures
from swebench_trainer.store.jsonl import read_json, read_rows
from swebench_trainer.store.rundir import StageDir


def loss_figures(stage: StageDir) -> Figures:
    """The last training loss, and the held-out loss of the weights that were kept."""
    rows = read_rows(stage.file("metrics.jsonl"))
    losses = [row["loss"] for row in rows if "loss" in row]
    figures: Figures = {"loss": f"{losses[-1]:.4f}" if losses else "?"}
    audit = read_json(stage.file("audit.json")) or {}
    if kept := audit.get("validation"):
        best = f"{kept['kept_loss']:.4f} at step {kept['kept_step']}, which was kept"
        figures["held-out loss"] = best
    return figures
