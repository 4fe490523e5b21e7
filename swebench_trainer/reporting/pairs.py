"""The output of `swebench-train pairs`: some pairs, their counts, and bottlenecks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from swebench_trainer.reporting.console import print_line, printable
from swebench_trainer.reporting.preferences import (
    counts,
    example,
    limiting,
    origins,
    surface,
)
from swebench_trainer.reporting.summaries import PairStats
from swebench_trainer.types import Pair


def print_pairs(
    console: Console, stats: PairStats, examples: Sequence[Pair], lines: int
) -> None:
    """Prints pairs, then the figures of all of them.

    Args:
        console: Where to print.
        stats: Their counts.
        examples: The pairs to show.
        lines: Maximum number of lines per answer; 0 prints all.
    """
    for pair in examples:
        console.rule(Text(printable(pair.instance_id)), align="left", style="cyan")
        for line in origins(pair):
            print_line(console, line)
        console.print(example(pair, lines), highlight=False)
    console.print(counts(stats))
    console.print(limiting(stats))
    for line in surface(stats):
        print_line(console, line)
    if not stats.graded:
        print_line(console, "These rejects were not graded; some may be correct.")
