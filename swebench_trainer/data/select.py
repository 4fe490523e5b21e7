"""Selection of instances, and the split into training and held-out.

An instance is held out if the digest of the seed and its id (or its repository's name),
read as a number in [0, 1), is below the fraction. So added rows never move an instance to
the other side, and a larger fraction holds out a superset. In return, shares are met
only on average. No rule can be stable and never leave a side empty: where the fraction
would leave one empty (for example, with three repositories), the names with the smallest
numbers are held out until the share is nearest. Only this fallback can change with added
rows, and the stage reports it.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from pathlib import Path

from swebench_trainer.data.metadata import Metadata
from swebench_trainer.data.rows import ROW_SUFFIXES, read_rows_file
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.recipe.models import DataTable, Holdout, Selection
from swebench_trainer.store.draw import draw_fraction, draw_key
from swebench_trainer.types import DropReason

_FIELDS = {
    "ids": ("instance_id", "instances"),
    "repos": ("repo", "repositories"),
    "languages": ("language", "languages"),
    "difficulties": ("difficulty", "difficulties"),
}
"""Metadata field of each key of a selection, and its values in messages."""


def select(
    instances: Sequence[Metadata],
    table: DataTable,
    seed: int,
    known: Collection[str] = (),
) -> set[str]:
    """Ids of the instances selected by `include`, `exclude`, patch size and `limit`.

    Args:
        instances: All instances of the source.
        table: The recipe's `[data]`.
        seed: Seed of `limit`.
        known: Ids of unusable rows of the source.

    Raises:
        DataError: `include` names something that does not exist.
    """
    include, exclude = _selection(table.include), _selection(table.exclude)
    _require_known(include, instances, known)
    most_lines = table.max_patch_lines or math.inf
    most_files = table.max_patch_files or math.inf
    wanted = [
        metadata.instance_id
        for metadata in instances
        if all(_matches(include, metadata))
        and not any(_matches(exclude, metadata))
        and metadata.lines <= most_lines
        and len(metadata.files) <= most_files
    ]
    if table.limit is not None:
        wanted.sort(key=lambda name: draw_key(seed, "limit", name))
    return set(wanted[: table.limit])


def _selection(given: tuple[str, ...] | Selection) -> dict[str, frozenset[str]]:
    """The given values by key; languages are case-insensitive."""
    selection = given if isinstance(given, Selection) else Selection(ids=given)
    values = {key: frozenset(getattr(selection, key)) for key in _FIELDS}
    values["languages"] = frozenset(map(str.lower, values["languages"]))
    return {key: some for key, some in values.items() if some}


def _matches(
    selection: Mapping[str, frozenset[str]], metadata: Metadata
) -> Iterator[bool]:
    for key, values in selection.items():
        yield getattr(metadata, _FIELDS[key][0]) in values


def _require_known(
    selection: Mapping[str, frozenset[str]],
    instances: Sequence[Metadata],
    known: Iterable[str],
) -> None:
    for key, values in selection.items():
        field, noun = _FIELDS[key]
        existing = {getattr(metadata, field) for metadata in instances}
        missing = sorted(values - existing - set(known if key == "ids" else ()))
        if missing:
            few = ", ".join(map(repr, sorted(existing)[:8]))
            hint = f"The data has: {few}{' and more' if len(existing) > 8 else ''}."
            if close := difflib.get_close_matches(missing[0], existing, 1):
                hint = f"Did you mean {close[0]!r}?"
            raise DataError(
                f"[data] include names {len(missing)} {noun} that are not in the "
                f"data: {', '.join(missing[:5])}.",
                hint=hint,
            )


@dataclass(frozen=True)
class HeldOut:
    """The held-out instances.

    Attributes:
        ids: Ids of the held-out instances.
        note: Caveat for the user; empty if the split is exactly as requested.
        stable: Whether added rows never move an instance to the other side.
        unusable: Instances that cannot be assigned to a side, with the reason.
    """

    ids: frozenset[str]
    note: str = ""
    stable: bool = True
    unusable: Mapping[str, DropReason] = field(default_factory=dict)


def split(
    instances: Sequence[Metadata],
    holdout: Holdout,
    seed: int,
    known: Collection[str] = (),
) -> HeldOut:
    """Decide which instances are held out.

    Args:
        instances: The selected instances.
        holdout: The rule.
        seed: Seed of the split.
        known: Ids of other rows, which a list may name too.

    Raises:
        DataError: A list cannot be read, or names instances that are not in the data.
        StageError: A side would be empty.
    """
    if holdout.by == "list":
        found = HeldOut(_listed(instances, holdout, known))
    elif holdout.after is None and not holdout.fraction:
        return HeldOut(frozenset())
    elif holdout.by == "time":
        found = _newest(instances, holdout)
    else:
        found = _drawn(instances, holdout, seed)
    rest = len(instances) - len(found.unusable) - len(found.ids)
    if not found.ids or not rest:
        repos = len({metadata.project for metadata in instances})
        side = "no held-out instances" if rest else "no training instances"
        raise StageError(
            f"Splitting {len(instances)} instances of {repos} repositories by {holdout.by} "
            f"leaves one side empty ({side}).",
            hint=_WAYS_OUT[holdout.by],
        )
    share, wanted = len(found.ids) / len(instances), holdout.fraction
    near = wanted / 2 <= share <= wanted * 2
    if holdout.by in ("repo", "instance") and found.stable and not near:
        note = f"{share:.0%} held out instead of {wanted:.0%}"
        return replace(found, note=f"{note}; try another fraction or seed")
    return found


_BY_INSTANCE = 'holdout = { by = "instance", fraction = 0.2 }'
_WAYS_OUT = {
    "repo": f"Use more data, or split by instance: [data] {_BY_INSTANCE}.",
    "instance": "Use more data, or hold out nothing: [data] holdout = { fraction = 0 }.",
    "time": f"Choose another day or fraction, or split by instance: [data] {_BY_INSTANCE}.",
    "list": "Check which listed ids are selected: include, exclude and limit apply first, "
    "and dropped.jsonl lists the unusable rows.",
}


def _drawn(instances: Sequence[Metadata], holdout: Holdout, seed: int) -> HeldOut:
    """Split by instance or repository, with the same rule in each stratum.

    All mirrors of a repository are on one side.
    """
    unit = "project" if holdout.by == "repo" else "instance_id"
    strata: dict[str, Counter[str]] = defaultdict(Counter)
    for metadata in instances:
        stratum = getattr(metadata, holdout.stratify) if holdout.stratify else ""
        strata[stratum][getattr(metadata, unit)] += 1
    held_out: set[str] = set()
    to_share = 0
    for sizes in strata.values():
        drawn, by_share = _draw(sizes, holdout.fraction, seed)
        held_out |= drawn
        to_share += by_share
    note = ""
    if to_share and holdout.stratify:
        note = (
            f"filled up to the fraction in {to_share} of {len(strata)} strata, which "
            "are small; added rows may change the split there"
        )
    elif to_share:
        units = "repositories" if holdout.by == "repo" else "instances"
        note = (
            f"filled up to the fraction because of few {units}; added rows may change "
            "the split"
        )
    ids = frozenset(m.instance_id for m in instances if getattr(m, unit) in held_out)
    return HeldOut(ids, note, stable=not to_share)


def _draw(
    sizes: Mapping[str, int], fraction: float, seed: int
) -> tuple[set[str], bool]:
    """The names below the fraction; or, if a side were empty, those filling up the share.

    Returns:
        The names, and whether they fill up the share.
    """
    places = {name: draw_fraction(seed, "holdout", name) for name in sizes}
    below = {name for name, place in places.items() if place < fraction}
    if len(sizes) < 2:
        return below, True  # a second name may move this one to the other side
    if 0 < len(below) < len(sizes):
        return below, False
    wanted = fraction * sum(sizes.values())
    held_out: set[str] = set()
    size = 0
    for name in sorted(sizes, key=lambda name: places[name])[:-1]:
        nearer = abs(size + sizes[name] - wanted) < abs(size - wanted)
        if nearer or not held_out:
            held_out.add(name)
            size += sizes[name]
    return held_out, True


def _newest(instances: Sequence[Metadata], holdout: Holdout) -> HeldOut:
    """Instances created on a day or later, or the newest share."""
    created: dict[str, datetime] = {}
    unusable: dict[str, DropReason] = {}
    for metadata in instances:
        when = _when(metadata.created_at)
        if when is None:
            what = repr(metadata.created_at[:40]) if metadata.created_at else "missing"
            unusable[metadata.instance_id] = DropReason(
                f"created_at is {what}, but the split by time needs a date"
            )
        else:
            created[metadata.instance_id] = when
    note = ""
    if holdout.after is not None:
        first = datetime.combine(holdout.after, time(), UTC)
    elif created:
        newest = sorted(created.values(), reverse=True)
        first = newest[max(1, round(len(newest) * holdout.fraction)) - 1]
        day = first.isoformat()
        note = f"created on or after {day}; newer rows would move this date"
    ids = frozenset(name for name, when in created.items() if when >= first)
    return HeldOut(ids, note, stable=not note, unusable=unusable)


def _when(text: str) -> datetime | None:
    """The date in an ISO format, in UTC if it has no time zone."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _listed(
    instances: Sequence[Metadata], holdout: Holdout, known: Collection[str]
) -> frozenset[str]:
    listed = {*holdout.ids, *(_ids_of(holdout.file) if holdout.file else ())}
    existing = {metadata.instance_id for metadata in instances}
    if missing := sorted(listed - existing - set(known)):
        raise DataError(
            f"[data] holdout lists {len(missing)} instances that are not in the data: "
            f"{', '.join(missing[:5])}.",
            hint="Remove them from the list, or add their rows to the data.",
        )
    return frozenset(listed & existing)


def _ids_of(path: Path) -> list[str]:
    """The ids in a file of rows, or in a text file with one per line and `#` comments.

    Raises:
        DataError: The file cannot be read, or a row has no id.
    """
    if path.suffix in ROW_SUFFIXES:
        ids = []
        for number, row in enumerate(read_rows_file(path), start=1):
            if not isinstance(row.get("instance_id"), str):
                raise DataError(f"{path}, row {number}: instance_id is missing.")
            ids.append(row["instance_id"])
        return ids
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(
            f"Cannot read the list {path}: {error.strerror}.",
            hint="Relative paths are resolved from the recipe's directory.",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.") from error
    ids = [line.partition("#")[0].strip() for line in lines]
    return [name for name in ids if name]
