"""prepare: from the source to instances, prompts and supervised rows.

A data set may be larger than memory. Its texts stay on disk (`Spool`) and are read in a
few passes; only the metadata that selects and splits them is held in memory.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any

from swebench_trainer.contents.library import Files
from swebench_trainer.data.leakage import Leakage, find_leakage, public_tests
from swebench_trainer.data.metadata import InstanceSet
from swebench_trainer.data.select import select, split
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.plugins.registry import Registry
from swebench_trainer.prompts.rendered import RenderedInstances
from swebench_trainer.prompts.retrieval import RECALL_AT, Recall
from swebench_trainer.recipe.models import ContextTable, Recipe
from swebench_trainer.stages.context import StageContext, StageSummary, token_counter
from swebench_trainer.store.jsonl import write_bytes, write_json, write_rows
from swebench_trainer.types import (
    DropReason,
    Instance,
    LeakageReport,
    PublicTests,
    SftRow,
    Split,
    as_row,
)

_TOP = 3
"""Number of reasons that a message lists."""


def run(context: StageContext) -> StageSummary:
    """Write `instances.jsonl`, `prompts.jsonl`, `sft.jsonl`, `dropped.jsonl` and more.

    `heldout.txt` lists the held-out ids, `leakage.json` summarizes the overlap of
    training with them and with public test splits, `leakage.jsonl` has each finding.

    Raises:
        DataError: The source is unusable, the recipe selects missing instances, or
            training and held-out instances overlap.
        StageError: A split is empty.
    """
    recipe = context.recipe
    registry = context.plugins.registry
    loaded = registry.create(recipe.data).load()
    dropped = [_Dropped(name, DropReason(text)) for name, text in loaded.dropped]

    def without(rows: InstanceSet, reasons: Mapping[str, DropReason]) -> InstanceSet:
        dropped.extend(_Dropped(*item) for item in reasons.items())
        return rows.only(lambda name: name not in reasons)

    rows = InstanceSet(loaded.instances)
    known = {*rows.names, *(name for name, _ in loaded.dropped)}
    rows = rows.only(
        select(rows.metadata, recipe.data, recipe.seed, known).__contains__
    )
    by_plugins = context.plugins.dropped_instances(rows.instances, "prepare")
    rows = without(rows, {name: DropReason(why) for name, why in by_plugins.items()})
    _require_some(context, rows, dropped)
    # Before rendering, so that the split is the same for every prompt style and format.
    heldout = split(rows.metadata, recipe.data.holdout, recipe.seed, known)
    rows = without(rows, heldout.unusable)
    rendered = _render(context, rows)
    _require_files(context, rendered, dropped)
    rows = without(rows, rendered.unusable)
    _require_some(context, rows, dropped, heldout.ids)
    _require_gradable(recipe, rows, heldout.ids)
    leaking, leakage = _guard(context, rows, heldout.ids)
    rows = without(rows, leaking)

    figures = _write(context, rows, rendered, heldout.ids, dropped)
    if ungradable := sum(bool(metadata.ungradable) for metadata in rows.metadata):
        figures["not gradable"] = ungradable
    if heldout.note:
        figures["holdout"] = heldout.note
    return figures | _recall_figures(rendered.recall) | _guard_figures(leakage)


DATA_CONTENT = "data content"
"""Setting that stands for the rows of the source: their digest."""


def extra_settings(recipe: Recipe, registry: Registry) -> Mapping[str, Any]:
    """Settings that decide the result besides the recipe's keys."""
    found = {DATA_CONTENT: registry.create(recipe.data).digest()}
    if isinstance(recipe.prompt, ContextTable):
        counter = token_counter(recipe, registry)
        found["tokens"] = counter.tokenizer if counter else "estimated"
    return found


def _write(
    context: StageContext,
    rows: InstanceSet,
    rendered: RenderedInstances,
    heldout: Collection[str],
    dropped: list[_Dropped],
) -> StageSummary:
    """Write the remaining instances and the dropped ones; return the counts."""

    def sided() -> Iterator[Instance]:
        for i in rows:
            side: Split = "heldout" if i.instance_id in heldout else "train"
            contents = rendered[i.instance_id].contents
            yield dataclasses.replace(i, split=side, contents=contents)

    def taught() -> Iterator[SftRow]:
        for name in train:
            example = rendered[name]
            if example.no_answer:
                untaught.append(_Dropped(name, example.no_answer, "sft"))
            else:
                yield SftRow(name, example.prompt.text, example.answer or "")

    back = [name for name in rows.names if name in heldout]
    train = [name for name in rows.names if name not in heldout]
    untaught: list[_Dropped] = []
    file = context.dir.file
    write_rows(file("instances.jsonl"), map(as_row, sided()))
    write_rows(file("prompts.jsonl"), map(rendered.row, rows.names))
    write_rows(file("sft.jsonl"), map(as_row, taught()))
    every = [*dropped, *untaught]
    write_bytes(file("heldout.txt"), "".join(f"{name}\n" for name in back).encode())
    if context.recipe.sft and len(untaught) == len(train):
        why = _top_reasons(untaught)
        message = f"No instance has an answer to train on: {why}."
        raise _refusal(context, every, message)
    write_rows(file("dropped.jsonl"), map(_Dropped.row, every))
    return {
        "train": len(train),
        "heldout": len(back),
        "sft rows": len(train) - len(untaught),
        "dropped": _top_reasons(every) if every else 0,
    }


def _require_some(
    context: StageContext,
    rows: InstanceSet,
    dropped: Sequence[_Dropped],
    heldout: Collection[str] = (),
) -> None:
    """Raise if no instance is left, or none on a side that had some."""
    sides = {name in heldout for name in rows.names}
    if False not in sides:
        which = "No instance is left" + (" to train on" if sides else "")
    elif heldout and True not in sides:
        which = "No held-out instance is left"
    else:
        return
    raise _refusal(context, dropped, f"{which}. Dropped: {_top_reasons(dropped)}.")


def _refusal(
    context: StageContext, dropped: Sequence[_Dropped], message: str, hint: str = ""
) -> StageError:
    """The error of a data set that cannot be used; writes `dropped.jsonl`."""
    file = context.dir.file("dropped.jsonl")
    write_rows(file, map(_Dropped.row, dropped))
    return StageError(message, hint=f"All reasons: {file}{hint}", details=file)


def _require_files(
    context: StageContext, rendered: RenderedInstances, dropped: Sequence[_Dropped]
) -> None:
    """Raise if files are missing that may be available later, unless the recipe drops them."""
    if not rendered.missing or context.recipe.contents.missing == "drop":
        return
    missing = [_Dropped(name, rendered.unusable[name]) for name in rendered.missing]
    raise _refusal(
        context,
        [*dropped, *missing],
        f"The files of {len(missing)} instances are unavailable. {_top_reasons(missing)}.",
        ". Fix the cause and run again, add other places in [contents], or drop them "
        'with [contents] missing = "drop".',
    )


@dataclass(frozen=True)
class _Dropped:
    """An instance that is left out.

    Attributes:
        scope: `run`, or `sft` for an instance that is only left out of training.
    """

    instance_id: str
    reason: DropReason
    scope: str = "run"

    def row(self) -> dict[str, str]:
        """The row of `dropped.jsonl`."""
        return {
            "instance_id": self.instance_id,
            "reason": str(self.reason),
            "cause": self.reason.text,
            "from": self.scope,
        }


def _top_reasons(dropped: Sequence[_Dropped]) -> str:
    """The most frequent reasons, each with its count."""
    groups: dict[str, list[DropReason]] = {}
    for one in dropped:
        groups.setdefault(one.reason.text, []).append(one.reason)
    top = sorted(groups.values(), key=len, reverse=True)[:_TOP]
    named = [f"{len(reasons)} x {_with_example(reasons)}" for reasons in top]
    rest = len(dropped) - sum(map(len, top))
    return "; ".join([*named, f"{rest} for other reasons"] if rest else named)


def _with_example(reasons: Sequence[DropReason]) -> str:
    """A reason, with the details of the first instance as an example if they differ."""
    first = reasons[0]
    if len(set(reasons)) == 1:
        return str(first)
    return f"{first.text} (for example: {first.detail})"


def _render(context: StageContext, rows: InstanceSet) -> RenderedInstances:
    recipe, registry = context.recipe, context.plugins.registry
    style = registry.create(recipe.prompt)
    rendered = RenderedInstances(
        recipe.prompt, style, _counter(recipe, registry), recipe.seed
    )
    required = recipe.contents.always or _applies_blocks(recipe)
    with closing(context.library()) as library:
        for instance in rows:
            rendered.add(instance, Files(library, instance), required=required)
    return rendered


def _counter(recipe: Recipe, registry: Registry) -> Callable[[str], int]:
    """Count tokens with the model's tokenizer, loaded at the first call."""
    backend = token_counter(recipe, registry)
    opened = cache(backend.open_counter) if backend else lambda: _estimate
    return lambda text: opened()(text)


def _estimate(text: str) -> int:
    """A conservative estimate of tokens: most tokenizers average over 3 bytes per token."""
    return -(-len(text.encode()) // 3)


def _recall_figures(recall: Recall) -> StageSummary:
    """The figures of a style that retrieves files."""
    if not recall.instances:
        return {}
    every, share = recall.percent()
    first = ", ".join(map(str, RECALL_AT))
    return {
        f"all gold files in the first {first}": f"{_percents(every)} of "
        f"{recall.instances} instances",
        f"gold files in the first {first}": _percents(share),
    }


def _percents(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}%" for value in values)


def _applies_blocks(recipe: Recipe) -> bool:
    """Whether answers need the repository's files to become patches."""
    asks = recipe.evaluate or (recipe.generate and not recipe.generate.model)
    return bool(asks) and recipe.prompt.answer == "search-replace"


def _require_gradable(
    recipe: Recipe, rows: InstanceSet, heldout: frozenset[str]
) -> None:
    """Raise if the recipe grades a side on which no instance can be graded.

    Rows without tests are fine for training. Failing only in `evaluate` would waste it.
    """
    wanted = {"train"} if recipe.generate else set()
    wanted |= set(recipe.evaluate.splits) if recipe.evaluate else set()
    reasons: dict[str, Counter[str]] = {side: Counter() for side in wanted}
    gradable = set()
    for metadata in rows.metadata:
        side = "heldout" if metadata.instance_id in heldout else "train"
        if not metadata.ungradable:
            gradable.add(side)
        elif side in wanted:
            reasons[side][metadata.ungradable] += 1
    for side in sorted(wanted - gradable):
        if counts := reasons[side]:
            why = "; ".join(f"{n} x {reason}" for reason, n in counts.most_common(3))
            raise StageError(
                f"None of the {counts.total()} {side} instances can be graded, but the "
                f"recipe grades them: {why}.",
                hint="Rows without tests only work for [sft]. Add rows with eval_script, "
                "log_parser and FAIL_TO_PASS, or remove [generate], [grade], [pairs], "
                "[dpo] and [evaluate].",
            )


def _guard(
    context: StageContext, rows: InstanceSet, heldout: frozenset[str]
) -> tuple[dict[str, DropReason], LeakageReport]:
    """Find the overlap of training and evaluation, and write it.

    Returns:
        The training instances to drop, with the reason; the report.

    Raises:
        DataError: They overlap, and the recipe does not allow it.
        StageError: Every training instance overlaps with evaluation.
    """
    policy = context.recipe.data.leakage
    file = context.dir.file("leakage.jsonl")
    back = rows.only(heldout.__contains__)
    train = rows.only(lambda name: name not in heldout)
    found = find_leakage(back, train) if back else Leakage([], set())
    write_rows(file, (finding.row() for finding in found.findings))
    if found.findings and policy == "refuse":
        raise DataError(
            f"Training and held-out instances overlap ({len(found.findings)} findings):\n"
            + "\n".join(f"  {line}" for line in found.examples()),
            hint=f"All of them: {file}. Split by repo, or set [data] leakage = "
            f'"drop" to drop the {len(found.train)} training instances, or "allow" to '
            "keep them and report it in the model card.",
            details=file,
        )
    reason = DropReason(f"overlaps with held-out instances: see {file.name}")
    leaking = dict.fromkeys(sorted(found.train), reason) if policy == "drop" else {}
    train = train.only(lambda name: name not in leaking)
    if not train:
        raise StageError(
            "Every training instance overlaps with held-out instances; none is left.",
            hint=f"All findings: {file}. Split by repo, or hold out fewer.",
            details=file,
        )
    report = LeakageReport(
        policy=policy,
        train=len(train),
        heldout=len(back),
        findings=len(found.findings),
        reasons=Counter(finding.reason for finding in found.findings),
        leaking=len(found.train),
        dropped=len(leaking),
        examples=found.examples(),
        public_tests=PublicTests(
            public_tests(train.metadata), public_tests(back.metadata)
        ),
    )
    write_json(context.dir.file("leakage.json"), report)
    return leaking, report


def _guard_figures(report: LeakageReport) -> StageSummary:
    """The figures of the leakage check, if it found anything."""
    figures: StageSummary = {}
    if report.findings:
        figures["leakage"] = f"{report.findings} findings"
    if tests := report.public_tests.train:
        named = (f"{name} ({count})" for name, count in tests.items())
        figures["trains on the public test of"] = ", ".join(named)
    return figures
