"""prepare: from the source to instances, prompts and supervised rows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from swebench_trainer.contracts import PromptStyle
from swebench_trainer.data.facts import facts_of
from swebench_trainer.data.select import select, split
from swebench_trainer.errors import StageError
from swebench_trainer.prompts.answers import AnswerForm, render_answer
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.stages import Figures, StageContext
from swebench_trainer.store.jsonl import write_bytes, write_rows
from swebench_trainer.types import Instance, SftRow, as_row


def run(context: StageContext) -> Figures:
    """Writes `instances.jsonl`, `prompts.jsonl`, `sft.jsonl`, `dropped.jsonl`, `heldout.txt`.

    Raises:
        DataError: The source cannot be used, or what is asked for is not there.
        StageError: A split is empty.
    """
    recipe = context.recipe
    registry = context.plugins.registry
    loaded = registry.create("source", recipe.data).load()
    dropped = [_dropped(name, reason) for name, reason in loaded.dropped]

    facts = {i.instance_id: facts_of(i) for i in loaded.instances}
    known = {*facts, *(name for name, _ in loaded.dropped)}
    chosen = select(list(facts.values()), recipe.data, recipe.seed, known)
    instances = [i for i in loaded.instances if i.instance_id in chosen]
    left_out = context.plugins.dropped_instances(instances, "prepare")
    dropped += [_dropped(name, reason) for name, reason in left_out.items()]
    instances = [i for i in instances if i.instance_id not in left_out]

    prompts, unusable = _prompts(
        instances, registry.create("prompt style", recipe.prompt)
    )
    unusable |= _unanswerable(instances, recipe)
    dropped += [_dropped(name, reason) for name, reason in unusable.items()]
    instances = [i for i in instances if i.instance_id not in unusable]
    if not instances:
        raise StageError(
            f"No instance is left of {len(loaded.instances)}. {_first_reasons(dropped)}",
            hint=f"All reasons: {context.dir.file('dropped.jsonl')}",
        )
    heldout = split(
        [facts[i.instance_id] for i in instances],
        *(recipe.data.holdout, recipe.seed, known),
    )
    dropped += [_dropped(name, reason) for name, reason in heldout.unusable.items()]
    instances = [
        dataclasses.replace(
            i, split="heldout" if i.instance_id in heldout.ids else "train"
        )
        for i in instances
        if i.instance_id not in heldout.unusable
    ]
    rows, not_taught = _sft_rows(instances, prompts, recipe.prompt.answer)
    dropped += [_dropped(name, reason, "sft") for name, reason in not_taught.items()]

    write_rows(context.dir.file("instances.jsonl"), map(as_row, instances))
    write_rows(
        context.dir.file("prompts.jsonl"),
        (
            {"instance_id": i.instance_id, "prompt": prompts[i.instance_id]}
            for i in instances
        ),
    )
    write_rows(context.dir.file("sft.jsonl"), map(as_row, rows))
    write_rows(context.dir.file("dropped.jsonl"), dropped)
    ids = [i.instance_id + "\n" for i in instances if i.split == "heldout"]
    write_bytes(context.dir.file("heldout.txt"), "".join(ids).encode())
    figures: Figures = {
        "train": len(instances) - len(ids),
        "heldout": len(ids),
        "sft rows": len(rows),
        "dropped": _first_reasons(dropped) if dropped else 0,
    }
    return figures | ({"holdout": heldout.note} if heldout.note else {})


def _dropped(instance_id: str, reason: str, taken_from: str = "run") -> dict[str, str]:
    return {"instance_id": instance_id, "reason": reason, "from": taken_from}


def _first_reasons(dropped: Sequence[dict[str, str]]) -> str:
    """The most frequent reasons, for an error."""
    reasons = Counter(row["reason"] for row in dropped)
    named = [f"{count} x {reason}" for reason, count in reasons.most_common(3)]
    rest = len(dropped) - sum(count for _, count in reasons.most_common(3))
    return "; ".join([*named, f"{rest} for other reasons"] if rest else named)


def _prompts(
    instances: Iterable[Instance], style: PromptStyle
) -> tuple[dict[str, str], dict[str, str]]:
    """The prompt of each instance, and the reasons of those without."""
    prompts: dict[str, str] = {}
    unusable: dict[str, str] = {}
    for instance in instances:
        try:
            prompts[instance.instance_id] = style.render(instance)
        except ValueError as error:
            unusable[instance.instance_id] = str(error)
    return prompts, unusable


def _unanswerable(instances: Iterable[Instance], recipe: Recipe) -> dict[str, str]:
    """Instances that the model could be asked about, but whose answer nobody could apply."""
    asks = recipe.evaluate or (recipe.generate and not recipe.generate.model)
    if not asks or recipe.prompt.answer != "search-replace":
        return {}
    reason = (
        "search-replace answers need the repository's files, which the row does not "
        'have: use [prompt] answer = "diff"'
    )
    return {i.instance_id: reason for i in instances if not i.snapshot}


def _sft_rows(
    instances: Iterable[Instance], prompts: dict[str, str], form: AnswerForm
) -> tuple[list[SftRow], dict[str, str]]:
    """Supervised rows of the training split, and the reasons of those without."""
    rows: list[SftRow] = []
    not_taught: dict[str, str] = {}
    for instance in instances:
        if instance.split != "train":
            continue
        try:
            answer = render_answer(form, instance)
        except ValueError as error:
            not_taught[instance.instance_id] = str(error)
            continue
        rows.append(SftRow(instance.instance_id, prompts[instance.instance_id], answer))
    return rows, not_taught
