"""The curves of a run's trainings and of what they led to, as lines of blocks in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.table import Table

WIDTH = 28
"""Blocks of a curve, each the mean of its steps: what 80 columns leave."""

_BLOCKS = "▁▂▃▄▅▆▇█"

_SHOWN = {"loss": "loss", "rewards/margins": "margin", "eval_loss": "held-out loss"}
"""Columns of `metrics.jsonl` that have a curve, with their names in the table."""


def training_curves(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table | None:
    """Loss and margin of each training over its steps; `None` if there was none.

    Args:
        metrics: Rows of `metrics.jsonl`, by the name of the stage.
    """
    table = Table("stage", "what", title="training")
    for name in ("steps", "first", "last"):
        table.add_column(name, justify="right")
    table.add_column("curve")
    for stage, rows in metrics.items():
        for column, word in _SHOWN.items():
            points = [float(row[column]) for row in rows if column in row]
            if len(points) > 1:
                ends = (f"{points[0]:.3f}", f"{points[-1]:.3f}")
                steps = str(rows[-1]["step"])
                table.add_row(stage, word, steps, *ends, sparkline(points))
    return table if table.row_count else None


def resolved_curves(curve: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table | None:
    """What the milestones of trainings resolve; `None` if none were kept.

    Args:
        curve: `curve` of the evaluation's `summary.json`, by split.
    """
    table = Table("split", "training", title="resolved by training time")
    for name in ("step", "minutes", "resolved"):
        table.add_column(name, justify="right")
    table.add_column("rate")
    for split, points in curve.items():
        for point in points:
            minutes = f"{point['seconds'] / 60:.1f}"
            count = f"{point['resolved']} of {point['total']}"
            bar = "█" * round(WIDTH * point["rate"])
            rate = f"{point['rate']:6.1%} {bar}"
            step = str(point["step"])
            table.add_row(split, point["stage"], step, minutes, count, rate)
    return table if table.row_count else None


def sparkline(points: Sequence[float], width: int = WIDTH) -> str:
    """A line of blocks, the lowest for the smallest value and the highest for the largest."""
    count = min(width, len(points))
    edges = [round(n * len(points) / count) for n in range(count + 1)]
    means = [sum(points[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)
