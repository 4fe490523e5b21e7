"""prepare: from the source to instances, prompts and supervised rows.

A data set may be larger than memory. Its texts stay on disk (`Spool`), pass by a few
times, and only the facts that decide on them are held.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from typing import Any

from swebench_trainer.contents.library import Files
from swebench_trainer.data.facts import Rows
from swebench_trainer.data.leakage import Leakage, find_leakage, public_tests
from swebench_trainer.data.select import select, split
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.plugins.registry import Registry
from swebench_trainer.prompts.drafts import Drafts
from swebench_trainer.prompts.recall import AT, Recall
from swebench_trainer.recipe.models import ContextTable, Recipe
from swebench_trainer.stages.context import StageContext, StageSummary, token_counter
from swebench_trainer.store.jsonl import (
    write_bytes,
    write_json,
    write_rows,
)
from swebench_trainer.types import Instance, SftRow, Split, as_row


def run(context: StageContext) -> StageSummary:
    """Writes `instances.jsonl`, `prompts.jsonl`, `sft.jsonl`, `dropped.jsonl` and more.

    `heldout.txt` lists the ids that are kept back, `leakage.json` says what training
    shares with them and with public test splits, `leakage.jsonl` has each finding.

    Raises:
        DataError: The source cannot be used, what is asked for is not there, or
            training and held-out instances share something.
        StageError: A split is empty.
    """
    recipe = context.recipe
    registry = context.plugins.registry
    loaded = registry.create("source", recipe.data).load()
    dropped = [_dropped(name, reason) for name, reason in loaded.dropped]

    def without(rows: Rows, reasons: Mapping[str, str]) -> Rows:
        dropped.extend(_dropped(*item) for item in reasons.items())
        return rows.only(lambda name: name not in reasons)

    rows = Rows(loaded.instances)
    known = {*rows.names, *(name for name, _ in loaded.dropped)}
    rows = rows.only(select(rows.facts, recipe.data, recipe.seed, known).__contains__)
    asked_away = context.plugins.dropped_instances(rows.instances, "prepare")
    rows = without(rows, asked_away)
    _require_some(context, rows, dropped)
    # Before any prompt is made, so that every style and form has the same split.
    heldout = split(rows.facts, recipe.data.holdout, recipe.seed, known)
    rows = without(rows, heldout.unusable)
    drafts = _drafts(context, rows)
    _require_files(context, drafts, dropped)
    rows = without(rows, drafts.unusable)
    _require_some(context, rows, dropped, heldout.ids)
    _require_gradable(recipe, rows, heldout.ids)
    leaking, leakage = _guard(context, rows, heldout.ids)
    rows = without(rows, leaking)

    figures = _write(context, rows, drafts, heldout.ids, dropped)
    if ungradable := sum(bool(facts.ungradable) for facts in rows.facts):
        figures["not gradable"] = ungradable
    if heldout.note:
        figures["holdout"] = heldout.note
    return figures | _recall_figures(drafts.recall) | _guard_figures(leakage)


def inputs(recipe: Recipe, registry: Registry) -> Mapping[str, Any]:
    """Settings that decide the result besides the recipe's keys."""
    found = {"data content": registry.create("source", recipe.data).digest()}
    if isinstance(recipe.prompt, ContextTable):
        counter = token_counter(recipe, registry)
        found["tokens"] = counter.tokenizer if counter else "estimated"
    return found


def _write(
    context: StageContext,
    rows: Rows,
    drafts: Drafts,
    heldout: Collection[str],
    dropped: list[dict[str, str]],
) -> StageSummary:
    """Writes what is left, and what is not with the reasons; returns the counts."""

    def sided() -> Iterator[Instance]:
        for i in rows:
            side: Split = "heldout" if i.instance_id in heldout else "train"
            contents = drafts[i.instance_id].contents
            yield dataclasses.replace(i, split=side, contents=contents)

    def taught() -> Iterator[SftRow]:
        for name in train:
            draft = drafts[name]
            if draft.untaught:
                untaught.append(_dropped(name, draft.untaught, "sft"))
            else:
                yield SftRow(name, draft.prompt, draft.answer)

    back = [name for name in rows.names if name in heldout]
    train = [name for name in rows.names if name not in heldout]
    untaught: list[dict[str, str]] = []
    file = context.dir.file
    write_rows(file("instances.jsonl"), map(as_row, sided()))
    write_rows(file("prompts.jsonl"), map(drafts.row, rows.names))
    write_rows(file("sft.jsonl"), map(as_row, taught()))
    write_rows(file("dropped.jsonl"), every := [*dropped, *untaught])
    write_bytes(file("heldout.txt"), "".join(f"{name}\n" for name in back).encode())
    if context.recipe.sft and len(untaught) == len(train):
        raise StageError(
            f"There is no answer to train on. {_first_reasons(untaught)}.",
            hint=f"All reasons: {file('dropped.jsonl')}",
        )
    return {
        "train": len(train),
        "heldout": len(back),
        "sft rows": len(train) - len(untaught),
        "dropped": _first_reasons(every) if every else 0,
    }


def _require_some(
    context: StageContext,
    rows: Rows,
    dropped: Sequence[dict[str, str]],
    heldout: Collection[str] = (),
) -> None:
    """Raises if nothing is left, or nothing of a side that had something."""
    sides = {name in heldout for name in rows.names}
    if False not in sides:
        which = "No instance is left" + (" to train on" if sides else "")
    elif heldout and True not in sides:
        which = "No held-out instance is left"
    else:
        return
    file = context.dir.file("dropped.jsonl")
    write_rows(file, dropped)
    raise StageError(
        f"{which}. Dropped: {_first_reasons(dropped)}.", hint=f"All reasons: {file}"
    )


def _require_files(
    context: StageContext, drafts: Drafts, dropped: Sequence[dict[str, str]]
) -> None:
    """Raises if files are missing that may be had another time, and none may be."""
    if not drafts.missing or context.recipe.contents.missing == "drop":
        return
    missing = [_dropped(name, drafts.unusable[name]) for name in drafts.missing]
    file = context.dir.file("dropped.jsonl")
    write_rows(file, [*dropped, *missing])
    raise StageError(
        f"The files of {len(missing)} instances cannot be had. {_first_reasons(missing)}.",
        hint=f"All of them: {file}. Mend it and call again, look elsewhere with "
        '[contents], or leave them out with [contents] missing = "drop".',
    )


def _dropped(instance_id: str, reason: str, taken_from: str = "run") -> dict[str, str]:
    return {"instance_id": instance_id, "reason": reason, "from": taken_from}


def _first_reasons(dropped: Sequence[dict[str, str]]) -> str:
    """The most frequent reasons, each with its count."""
    reasons: dict[str, list[str]] = {}
    for row in dropped:
        reasons.setdefault(row["reason"].partition(" (")[0], []).append(row["reason"])
    counts = Counter({kind: len(found) for kind, found in reasons.items()})
    named = [
        f"{count} x {_with_example(reasons[kind])}"
        for kind, count in counts.most_common(3)
    ]
    rest = len(dropped) - sum(count for _, count in counts.most_common(3))
    return "; ".join([*named, f"{rest} for other reasons"] if rest else named)


def _with_example(reasons: Sequence[str]) -> str:
    """A reason; where rows differ in its details, those of the first are an example."""
    alike = len(set(reasons)) == 1
    return reasons[0] if alike else reasons[0].replace(" (", " (as in: ", 1)


def _drafts(context: StageContext, rows: Rows) -> Drafts:
    recipe, registry = context.recipe, context.plugins.registry
    style = registry.create("prompt style", recipe.prompt)
    drafts = Drafts(recipe.prompt, style, _counter(recipe, registry), recipe.seed)
    required = recipe.contents.always or _applies_blocks(recipe)
    with closing(context.library()) as library:
        for instance in rows:
            drafts.add(instance, Files(library, instance), required=required)
    return drafts


def _counter(recipe: Recipe, registry: Registry) -> Callable[[str], int]:
    """Counts tokens as the model does, whose tokenizer is loaded when it is first asked."""
    backend = token_counter(recipe, registry)
    opened = cache(backend.open_counter) if backend else lambda: _estimate
    return lambda text: opened()(text)


def _estimate(text: str) -> int:
    """Tokens of a text, on the safe side: few tokenizers need more than one for 3 bytes."""
    return -(-len(text.encode()) // 3)


def _recall_figures(recall: Recall) -> StageSummary:
    """What the stage says of the files that a style has found."""
    if not recall.instances:
        return {}
    places = ", ".join(map(str, AT))
    every, share = (", ".join(f"{p:.1f}" for p in ps) for ps in recall.percent())
    return {
        f"% of {recall.instances} with all gold files in the first {places}": every,
        f"% of gold files in the first {places}": share,
    }


def _applies_blocks(recipe: Recipe) -> bool:
    """Whether the model is asked for answers that only the files make a patch of."""
    asks = recipe.evaluate or (recipe.generate and not recipe.generate.model)
    return bool(asks) and recipe.prompt.answer == "search-replace"


def _require_gradable(recipe: Recipe, rows: Rows, heldout: frozenset[str]) -> None:
    """Raises if no instance of a side that is to be graded can be.

    Rows without tests train as well as any; to find out in `evaluate` that there is
    nothing to grade would cost the training.
    """
    wanted = {"train"} if recipe.generate else set()
    wanted |= set(recipe.evaluate.splits) if recipe.evaluate else set()
    reasons: dict[str, Counter[str]] = {side: Counter() for side in wanted}
    gradable = set()
    for facts in rows.facts:
        side = "heldout" if facts.instance_id in heldout else "train"
        if not facts.ungradable:
            gradable.add(side)
        elif side in wanted:
            reasons[side][facts.ungradable] += 1
    for side in sorted(wanted - gradable):
        if counts := reasons[side]:
            why = "; ".join(f"{n} x {reason}" for reason, n in counts.most_common(3))
            raise StageError(
                f"None of the {counts.total()} {side} instances can be graded, and the "
                f"recipe asks for it: {why}.",
                hint="Rows without tests are for [sft]. Add rows with eval_script, "
                "log_parser and FAIL_TO_PASS, or leave out what grades: [generate], "
                "[grade], [pairs], [dpo], [evaluate].",
            )


def _guard(
    context: StageContext, rows: Rows, heldout: frozenset[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Looks what training and evaluation share, and writes it down.

    Returns:
        The training instances to drop for it, with the reason; what was found.

    Raises:
        DataError: They share something, and the recipe does not allow it.
        StageError: Without what is shared nothing is left to train on.
    """
    policy = context.recipe.data.leakage
    file = context.dir.file("leakage.jsonl")
    back = rows.only(heldout.__contains__)
    train = rows.only(lambda name: name not in heldout)
    found = find_leakage(back, train) if back else Leakage([], set())
    write_rows(file, (finding.row() for finding in found.findings))
    if found.findings and policy == "refuse":
        raise DataError(
            f"Training and held-out instances share something, in {len(found.findings)} "
            "findings:\n" + "\n".join(f"  {line}" for line in found.examples()),
            hint=f"All of them: {file}. Split by repo, or set [data] leakage = "
            f'"drop" to leave the training instances out ({len(found.train)}), or '
            '"allow" to go on and say so in the model card.',
        )
    reason = f"shares something with held-out instances: see {file.name}"
    leaking = dict.fromkeys(sorted(found.train), reason) if policy == "drop" else {}
    train = train.only(lambda name: name not in leaking)
    if not train:
        raise StageError(
            "Every training instance shares something with held-out ones, so that none "
            "is left.",
            hint=f"All findings: {file}. Split by repo, or keep fewer back.",
        )
    report = {
        "policy": policy,
        "train": len(train),
        "heldout": len(back),
        "findings": len(found.findings),
        "reasons": Counter(finding.reason for finding in found.findings),
        "leaking": len(found.train),
        "dropped": len(leaking),
        "examples": found.examples(),
        "public test": {
            "train": public_tests(train.facts),
            "heldout": public_tests(back.facts),
        },
    }
    write_json(context.dir.file("leakage.json"), report)
    return leaking, report


def _guard_figures(report: Mapping[str, Any]) -> StageSummary:
    """What the stage says of what it found, if it found something."""
    figures: StageSummary = {}
    if report["findings"]:
        figures["leakage"] = f"{report['findings']} findings"
    if tests := report["public test"]["train"]:
        named = (f"{name} ({count})" for name, count in tests.items())
        figures["trains on the public test of"] = ", ".join(named)
    return figures
