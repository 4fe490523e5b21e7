"""Which instances take part, and which of them are kept back."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from swebench_trainer.errors import DataError, StageError
from swebench_trainer.recipe.models import DataTable, Holdout
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Instance


def select(
    instances: Sequence[Instance], table: DataTable, seed: int
) -> list[Instance]:
    """Applies `include`, `exclude` and `limit`; the order is kept.

    Raises:
        DataError: An id to include does not exist.
    """
    known = {i.instance_id for i in instances}
    if missing := [name for name in table.include if name not in known]:
        raise DataError(
            f"[data] include names {len(missing)} instances that the data does not have: "
            f"{', '.join(missing[:5])}."
        )
    wanted = set(table.include) or known
    kept = [i for i in instances if i.instance_id in wanted - set(table.exclude)]
    if table.limit is not None:
        drawn = {
            i.instance_id
            for i in sorted(kept, key=lambda i: digest([seed, "limit", i.instance_id]))[
                : table.limit
            ]
        }
        kept = [i for i in kept if i.instance_id in drawn]
    return kept


def split(instances: Sequence[Instance], holdout: Holdout, seed: int) -> list[Instance]:
    """Marks each instance as `train` or `heldout`; the order is kept.

    Raises:
        StageError: One of the splits would be empty.
    """
    if not holdout.fraction:
        return list(instances)
    if holdout.by == "repo":
        kept_back = _repos(instances, holdout.fraction, seed)
        heldout = {i.instance_id for i in instances if i.repo in kept_back}
    else:
        heldout = set(_ids(instances, holdout.fraction, seed))
    if not heldout or len(heldout) == len(instances):
        repos = len({i.repo for i in instances})
        raise StageError(
            f"{len(instances)} instances of {repos} repositories cannot be split by "
            f"{holdout.by}: one side would be empty.",
            hint="Use more data, split by instance, or keep none back: "
            '[data] holdout = { by = "instance", fraction = 0.2 }.',
        )
    return [
        dataclasses.replace(i, split="heldout" if i.instance_id in heldout else "train")
        for i in instances
    ]


def _ids(instances: Sequence[Instance], fraction: float, seed: int) -> list[str]:
    ids = sorted(
        (i.instance_id for i in instances),
        key=lambda name: digest([seed, "holdout", name]),
    )
    return ids[: max(1, round(len(ids) * fraction))]


def _repos(instances: Sequence[Instance], fraction: float, seed: int) -> set[str]:
    """Whole repositories, in seeded order, as long as they bring the share nearer."""
    sizes = Counter(i.repo for i in instances)
    wanted = fraction * len(instances)
    kept_back: set[str] = set()
    size = 0
    for repo in sorted(sizes, key=lambda name: digest([seed, "holdout", name])):
        nearer = abs(size + sizes[repo] - wanted) < abs(size - wanted)
        last_one_left = len(kept_back) + 1 == len(sizes)
        if (nearer or not kept_back) and not last_one_left:
            kept_back.add(repo)
            size += sizes[repo]
    return kept_back
