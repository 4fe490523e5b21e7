"""Curves of training and of resolve rates, drawn with block characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.table import Table

from swebench_trainer.reporting.summaries import CurvePoint

WIDTH = 28
"""Blocks per curve, each the mean of some steps; fits into 80 columns."""

_BLOCKS = "▁▂▃▄▅▆▇█"

_SHOWN = {"loss": "loss", "rewards/margins": "margin", "eval_loss": "validation loss"}
"""Columns of `metrics.jsonl` with a curve, and their names in the table."""


def training_curves(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table | None:
    """Loss and margin of each training by step; `None` if nothing was trained.

    Args:
        metrics: Rows of `metrics.jsonl`, by stage.
    """
    table = Table("stage", "metric", title="Training")
    for name in ("steps", "first", "last"):
        table.add_column(name, justify="right")
    table.add_column("curve")
    for stage, rows in metrics.items():
        for column, label in _SHOWN.items():
            points = [float(row[column]) for row in rows if column in row]
            if len(points) > 1:
                ends = (f"{points[0]:.3f}", f"{points[-1]:.3f}")
                steps = str(rows[-1]["step"])
                table.add_row(stage, label, steps, *ends, sparkline(points))
    return table if table.row_count else None


def resolved_curves(curve: Mapping[str, Sequence[CurvePoint]]) -> Table | None:
    """Resolve rates of models saved during training; `None` if none were saved.

    Args:
        curve: Their results by split.
    """
    table = Table("split", "training", title="Resolved issues by training time")
    for name in ("step", "minutes", "resolved"):
        table.add_column(name, justify="right")
    table.add_column("rate")
    for split, points in curve.items():
        for point in points:
            minutes = f"{point.seconds / 60:.1f}"
            count = f"{point.resolved} of {point.total}"
            bar = "█" * round(WIDTH * point.rate)
            rate = f"{point.rate:6.1%} {bar}"
            table.add_row(split, point.stage, str(point.step), minutes, count, rate)
    return table if table.row_count else None


def sparkline(points: Sequence[float], width: int = WIDTH) -> str:
    """Blocks whose heights show the values, scaled from the smallest to the largest."""
    count = min(width, len(points))
    edges = [round(n * len(points) / count) for n in range(count + 1)]
    means = [sum(points[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)
