"""How many of the files that a fix touches were found for its issue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from swebench_trainer.patches.strict_diff import read_patch

AT = (1, 5, 10)
"""Places of a ranking up to which files count."""


@dataclass
class Recall:
    """Recall over instances, at each place of `AT`.

    Attributes:
        instances: Those whose gold patch touches a file that was there before.
        all_found: How many of them have every such file among the first.
        shares: Sum over them of the share of such files among the first.
    """

    instances: int = 0
    all_found: list[int] = field(default_factory=lambda: [0] * len(AT))
    shares: list[float] = field(default_factory=lambda: [0.0] * len(AT))

    def add(self, patch: str, ranked: Sequence[str]) -> None:
        """Counts an instance by its gold patch and the files found, the best first."""
        try:
            gold = {change.old for change in read_patch(patch) if change.old}
        except ValueError:  # a patch that nobody could learn from
            return
        if not gold:
            return
        self.instances += 1
        for n, place in enumerate(AT):
            found = gold.intersection(ranked[:place])
            self.all_found[n] += found == gold
            self.shares[n] += len(found) / len(gold)

    def percent(self) -> tuple[list[float], list[float]]:
        """Percent of the instances with all files, and mean percent of files, found."""
        most = max(1, self.instances)
        return (
            [100 * count / most for count in self.all_found],
            [100 * share / most for share in self.shares],
        )
