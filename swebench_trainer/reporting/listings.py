"""Tables of single commands: plugins, changed verdicts, parity with the harness."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from swebench_trainer.plugins.registry import Registry
from swebench_trainer.reporting.console import numbers
from swebench_trainer.types import Status, Verdict


@dataclass(frozen=True)
class Trial:
    """The gold patch or the no-op of one instance, graded.

    Attributes:
        patch: `gold` or `no-op`.
        seconds: Total wall time of all phases.
    """

    instance_id: str
    patch: str
    status: Status
    seconds: float
    reason: str = ""


def plugin_table(registry: Registry) -> Table:
    """Every registered plugin with its origin."""
    table = Table("kind", "name", "origin", "summary")
    for entry in registry:
        table.add_row(*map(Text, (entry.kind, entry.name, entry.origin, entry.summary)))
    return table


def parity_table(ours: Iterable[Trial], stock: Iterable[Trial]) -> Table:
    """Our statuses and times next to the unmodified harness's."""
    seconds = numbers("ours, s", "stock, s", "speedup")
    table = Table("instance", "patch", "ours", "stock", *seconds, title="parity")
    for mine, theirs in zip(ours, stock, strict=True):
        speedup = theirs.seconds / mine.seconds if mine.seconds else 0.0
        times = (f"{mine.seconds:.2f}", f"{theirs.seconds:.2f}", f"{speedup:.1f}")
        statuses = (mine.status, theirs.status)
        table.add_row(mine.instance_id, mine.patch, *statuses, *times)
    return table


def verdict_change(place: str, old: Verdict, new: Verdict) -> str:
    """One changed verdict in a line: its prediction, statuses, and changed flags."""
    flags = [f"+{flag}" for flag in new.flags if flag not in old.flags]
    flags += [f"-{flag}" for flag in old.flags if flag not in new.flags]
    name = f"{place} {new.instance_id} #{new.sample} ({new.model})".strip(" .")
    return " ".join([f"{name}: {old.status} → {new.status}", *flags])
