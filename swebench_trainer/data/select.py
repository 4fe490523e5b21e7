"""Which instances take part, and which of them are kept back.

Whether an instance is kept back depends on its own name (or its repository's) and the
seed: the name's digest, read as a number between 0 and 1, is below the fraction or not.
So rows that are added move nobody from one side to the other, and a larger fraction
keeps back all that a smaller one does. The price is that shares are met on average
only. No rule can be stable and never leave a side empty; where the fraction would (three
repositories, say), those with the smallest numbers are kept back instead, until the
share is nearest. That draw is the only one that added rows can change, and the stage
says when it was made.
"""

from __future__ import annotations

import difflib
import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from pathlib import Path

from swebench_trainer.data.facts import Facts
from swebench_trainer.data.rows import ROW_SUFFIXES, read_file
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.recipe.models import DataTable, Holdout, Selection
from swebench_trainer.store.digest import digest

_FIELDS = {
    "ids": "instance_id",
    "repos": "repo",
    "languages": "language",
    "difficulties": "difficulty",
}
"""What a key of a selection is compared with."""


def select(
    instances: Sequence[Facts],
    table: DataTable,
    seed: int,
    known: Collection[str] = (),
) -> set[str]:
    """Ids that `include`, `exclude`, the sizes of patches and `limit` leave.

    Args:
        instances: All there are.
        table: What was asked for.
        seed: Seed of `limit`.
        known: Ids that the source has but that cannot be used.

    Raises:
        DataError: Something that is to be included does not exist.
    """
    include, exclude = _selection(table.include), _selection(table.exclude)
    _require_known(include, instances, known)
    wanted = [
        facts.instance_id
        for facts in instances
        if all(_matches(include, facts).values())
        and not any(_matches(exclude, facts).values())
        and (table.max_patch_lines is None or facts.lines <= table.max_patch_lines)
        and (table.max_patch_files is None or len(facts.files) <= table.max_patch_files)
    ]
    if table.limit is not None:
        wanted = heapq.nsmallest(
            table.limit, wanted, key=lambda name: digest([seed, "limit", name])
        )
    return set(wanted)


def _selection(asked: tuple[str, ...] | Selection) -> dict[str, frozenset[str]]:
    """The values that were given, by key; languages have no case."""
    if not isinstance(asked, Selection):
        asked = Selection(ids=asked)
    given = {key: frozenset(getattr(asked, key)) for key in _FIELDS}
    given["languages"] = frozenset(map(str.lower, given["languages"]))
    return {key: values for key, values in given.items() if values}


def _matches(asked: Mapping[str, frozenset[str]], facts: Facts) -> dict[str, bool]:
    return {key: getattr(facts, _FIELDS[key]) in asked[key] for key in asked}


def _require_known(
    asked: Mapping[str, frozenset[str]],
    instances: Sequence[Facts],
    known: Iterable[str],
) -> None:
    for key, values in asked.items():
        there = {getattr(facts, _FIELDS[key]) for facts in instances}
        missing = sorted(values - there - set(known if key == "ids" else ()))
        if missing:
            close = difflib.get_close_matches(missing[0], there, 1)
            few = sorted(there)[:8]
            raise DataError(
                f"[data] include names {len(missing)} {_WORDS[key]} that the data does "
                f"not have: {', '.join(missing[:5])}.",
                hint=f"Did you mean {close[0]!r}?"
                if close
                else f"It has: {', '.join(map(repr, few))}"
                + (" and more." if len(there) > len(few) else "."),
            )


_WORDS = {
    "ids": "instances",
    "repos": "repositories",
    "languages": "languages",
    "difficulties": "difficulties",
}


@dataclass(frozen=True)
class HeldOut:
    """Which instances are kept back.

    Attributes:
        ids: Their ids.
        note: What must be known of the draw; empty when it is as asked.
        stable: Whether rows that are added leave everybody's side as it is.
        unusable: Reasons of the instances that the split has no side for.
    """

    ids: frozenset[str]
    note: str = ""
    stable: bool = True
    unusable: Mapping[str, str] = field(default_factory=dict)


def split(
    instances: Sequence[Facts], holdout: Holdout, seed: int, known: Collection[str] = ()
) -> HeldOut:
    """Decides which instances are kept back.

    Args:
        instances: Those that take part.
        holdout: How.
        seed: Seed of the draw.
        known: Other ids that a list may name: of rows that take no part.

    Raises:
        DataError: A list cannot be read, or names what the data does not have.
        StageError: One of the sides would be empty.
    """
    if holdout.by == "list":
        found = HeldOut(_listed(instances, holdout, known))
    elif holdout.after is None and not holdout.fraction:
        return HeldOut(frozenset())
    elif holdout.by == "time":
        found = _newest(instances, holdout)
    elif holdout.by == "repo":
        found = _drawn_repos(instances, holdout.fraction, seed)
    else:
        found = _drawn(instances, holdout, seed)
    rest = len(instances) - len(found.unusable) - len(found.ids)
    if not found.ids or not rest:
        repos = len({facts.project for facts in instances})
        side = "none would be kept back" if rest else "none would be left to train on"
        raise StageError(
            f"{len(instances)} instances of {repos} repositories cannot be split by "
            f"{holdout.by}: one side would be empty ({side}).",
            hint=_WAYS_OUT[holdout.by],
        )
    if holdout.by in ("repo", "instance") and not found.note:
        share = len(found.ids) / len(instances)
        if not holdout.fraction / 2 <= share <= holdout.fraction * 2:
            note = (
                f"{share:.0%} kept back for {holdout.fraction:.0%}: another fraction or "
                "seed gets nearer"
            )
            return replace(found, note=note)
    return found


_BY_INSTANCE = 'holdout = { by = "instance", fraction = 0.2 }'
_WAYS_OUT = {
    "repo": f"Use more data, or split by instance: [data] {_BY_INSTANCE}.",
    "instance": "Use more data, or keep none back: [data] holdout = { fraction = 0 }.",
    "time": f"Choose another day or fraction, or split otherwise: [data] {_BY_INSTANCE}.",
    "list": "Look which of the listed ids take part: include, exclude and limit come "
    "first, and dropped.jsonl has the rows that cannot be used.",
}


def _place(seed: int, name: str) -> float:
    """The name's own number in [0, 1)."""
    return int(digest([seed, "holdout", name]), 16) / 16**16


def _drawn(instances: Sequence[Facts], holdout: Holdout, seed: int) -> HeldOut:
    """Single instances, in each stratum by the same rule."""
    strata: dict[str, dict[str, int]] = defaultdict(dict)
    for facts in instances:
        stratum = getattr(facts, holdout.stratify) if holdout.stratify else ""
        strata[stratum][facts.instance_id] = 1
    kept_back: set[str] = set()
    to_share = []
    for stratum, ids in sorted(strata.items()):
        mine, by_share = _draw(ids, holdout.fraction, seed)
        kept_back |= mine
        to_share += [stratum] if by_share else []
    note = ""
    if to_share and holdout.stratify:
        note = (
            f"drawn to the share in {len(to_share)} of {len(strata)} strata, which are "
            "small: added rows may change it there"
        )
    elif to_share:
        note = _TO_SHARE.format("instances")
    return HeldOut(frozenset(kept_back), note, stable=not to_share)


_TO_SHARE = (
    "drawn to the share, because so few {} have none below it: added rows may change it"
)


def _drawn_repos(instances: Sequence[Facts], fraction: float, seed: int) -> HeldOut:
    """Whole repositories; mirrors of one go together."""
    sizes = Counter(facts.project for facts in instances)
    kept_back, by_share = _draw(sizes, fraction, seed)
    ids = frozenset(f.instance_id for f in instances if f.project in kept_back)
    note = _TO_SHARE.format("repositories") if by_share else ""
    return HeldOut(ids, note, stable=not by_share)


def _draw(
    sizes: Mapping[str, int], fraction: float, seed: int
) -> tuple[set[str], bool]:
    """Names whose place is below the fraction; else, by share, those nearest to it."""
    places = {name: _place(seed, name) for name in sizes}
    below = {name for name, place in places.items() if place < fraction}
    if len(sizes) < 2:
        return below, True  # a second name may send this one to the other side
    if 0 < len(below) < len(sizes):
        return below, False
    wanted = fraction * sum(sizes.values())
    kept_back: set[str] = set()
    size = 0
    for name in sorted(sizes, key=lambda name: places[name])[:-1]:
        nearer = abs(size + sizes[name] - wanted) < abs(size - wanted)
        if nearer or not kept_back:
            kept_back.add(name)
            size += sizes[name]
    return kept_back, True


def _newest(instances: Sequence[Facts], holdout: Holdout) -> HeldOut:
    """Instances that were created on a day or later, or the newest share."""
    created: dict[str, datetime] = {}
    unusable: dict[str, str] = {}
    for facts in instances:
        when = _when(facts.created_at)
        if when is None:
            what = repr(facts.created_at[:40]) if facts.created_at else "missing"
            unusable[facts.instance_id] = (
                f"created_at is {what}, and the split by time needs a date"
            )
        else:
            created[facts.instance_id] = when
    note = ""
    if holdout.after is not None:
        first = datetime.combine(holdout.after, time(), UTC)
    elif created:
        newest = sorted(created.values(), reverse=True)
        first = newest[max(1, round(len(newest) * holdout.fraction)) - 1]
        note = f"from {first.isoformat()} on; newer rows would move that day"
    ids = frozenset(name for name, when in created.items() if when >= first)
    return HeldOut(ids, note, stable=not note, unusable=unusable)


def _when(text: str) -> datetime | None:
    """A date as data sets write it; without a zone it is UTC."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _listed(
    instances: Sequence[Facts], holdout: Holdout, known: Collection[str]
) -> frozenset[str]:
    listed = {*holdout.ids, *(_ids_of(holdout.file) if holdout.file else ())}
    there = {facts.instance_id for facts in instances}
    if missing := sorted(listed - there - set(known)):
        raise DataError(
            f"[data] holdout lists {len(missing)} instances that the data does not "
            f"have: {', '.join(missing[:5])}.",
            hint="Take them out of the list, or add the rows to the data.",
        )
    return frozenset(listed & there)


def _ids_of(path: Path) -> list[str]:
    """The ids of a file: of its rows, or one a line; `#` begins a comment.

    Raises:
        DataError: The file cannot be read, or a row has no id.
    """
    if path.suffix in ROW_SUFFIXES:
        ids = []
        for number, row in enumerate(read_file(path), start=1):
            if not isinstance(row.get("instance_id"), str):
                raise DataError(f"{path}, row {number}: no instance_id.")
            ids.append(row["instance_id"])
        return ids
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(
            f"The list {path} cannot be read: {error.strerror}.",
            hint="A path in a recipe is relative to the recipe's own directory.",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.") from error
    ids = [line.partition("#")[0].strip() for line in lines]
    return [name for name in ids if name]
