"""prepare: from the source to instances, prompts and supervised rows.

A data set may be larger than memory. Its texts stay on disk (`Spool`), pass by a few
times, and only the facts that decide on them are held.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from swebench_trainer.contracts import PromptStyle
from swebench_trainer.data.facts import Facts, facts_of
from swebench_trainer.data.leakage import find_leakage, public_test
from swebench_trainer.data.select import select, split
from swebench_trainer.errors import DataError, StageError
from swebench_trainer.prompts.answers import AnswerForm, render_answer
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.stages import Figures, StageContext
from swebench_trainer.store.jsonl import (
    read_json,
    write_bytes,
    write_json,
    write_rows,
)
from swebench_trainer.store.spool import Spool
from swebench_trainer.types import Instance, SftRow, as_row

Reasons = Mapping[str, str]
"""Instance id → why it is left out."""


def run(context: StageContext) -> Figures:
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

    def without(
        instances: Sequence[Instance], reasons: Reasons, taken_from: str = "run"
    ) -> Sequence[Instance]:
        dropped.extend(_dropped(*item, taken_from) for item in reasons.items())
        return _those(instances, lambda name: name not in reasons)

    facts = {i.instance_id: facts_of(i) for i in loaded.instances}
    known = {*facts, *(name for name, _ in loaded.dropped)}
    chosen = select(list(facts.values()), recipe.data, recipe.seed, known)
    instances = _those(loaded.instances, chosen.__contains__)
    asked_away = context.plugins.dropped_instances(instances, "prepare")
    instances = without(instances, asked_away)
    instances = without(instances, _unanswerable(instances, recipe))
    prompts = _Prompts(instances, registry.create("prompt style", recipe.prompt))
    instances = without(instances, prompts.unusable)
    if not instances:
        write_rows(context.dir.file("dropped.jsonl"), dropped)
        raise StageError(
            f"No instance is left of {len(loaded.instances)}. {_first_reasons(dropped)}",
            hint=f"All reasons: {context.dir.file('dropped.jsonl')}",
        )
    taking_part = [facts[i.instance_id] for i in instances]
    heldout = split(taking_part, recipe.data.holdout, recipe.seed, known)
    instances = without(instances, heldout.unusable)
    instances = without(instances, _guard(context, instances, facts, heldout.ids))

    def sided() -> Iterator[Instance]:
        for i in instances:
            back = i.instance_id in heldout.ids
            yield dataclasses.replace(i, split="heldout" if back else "train")

    not_taught: dict[str, str] = {}
    form = recipe.prompt.answer
    write_rows(context.dir.file("instances.jsonl"), map(as_row, sided()))
    write_rows(context.dir.file("prompts.jsonl"), prompts.rows(instances))
    rows = _sft_rows(sided(), prompts, form, not_taught)
    write_rows(context.dir.file("sft.jsonl"), map(as_row, rows))
    dropped += [_dropped(name, reason, "sft") for name, reason in not_taught.items()]
    write_rows(context.dir.file("dropped.jsonl"), dropped)
    ids = [i.instance_id for i in instances if i.instance_id in heldout.ids]
    write_bytes(
        context.dir.file("heldout.txt"), "".join(f"{i}\n" for i in ids).encode()
    )
    train = len(instances) - len(ids)
    figures: Figures = {
        "train": train,
        "heldout": len(ids),
        "sft rows": train - len(not_taught),
        "dropped": _first_reasons(dropped) if dropped else 0,
    }
    if heldout.note:
        figures["holdout"] = heldout.note
    shared = read_json(context.dir.file("leakage.json"))
    if shared["findings"]:
        figures["leakage"] = f"{shared['findings']} findings"
    return figures


def _those(
    instances: Sequence[Instance], wanted: Callable[[str], bool]
) -> Sequence[Instance]:
    """The instances whose ids are wanted, without reading them into memory."""
    names = [i.instance_id for i in instances]
    if isinstance(instances, Spool):
        return instances.where(lambda number: wanted(names[number]))
    return [i for i in instances if wanted(i.instance_id)]


def _dropped(instance_id: str, reason: str, taken_from: str = "run") -> dict[str, str]:
    return {"instance_id": instance_id, "reason": reason, "from": taken_from}


def _first_reasons(dropped: Sequence[dict[str, str]]) -> str:
    """The most frequent reasons, for an error."""
    reasons = Counter(row["reason"] for row in dropped)
    named = [f"{count} x {reason}" for reason, count in reasons.most_common(3)]
    rest = len(dropped) - sum(count for _, count in reasons.most_common(3))
    return "; ".join([*named, f"{rest} for other reasons"] if rest else named)


class _Prompts:
    """The prompt of each instance, and the reasons of those without."""

    def __init__(self, instances: Iterable[Instance], style: PromptStyle) -> None:
        self.unusable: dict[str, str] = {}
        self._texts: Spool[str] = Spool()
        self._places: dict[str, int] = {}
        for instance in instances:
            try:
                text = style.render(instance)
            except ValueError as error:
                self.unusable[instance.instance_id] = str(error)
            else:
                self._places[instance.instance_id] = len(self._texts)
                self._texts.append(text)

    def __getitem__(self, instance_id: str) -> str:
        return self._texts[self._places[instance_id]]

    def rows(self, instances: Iterable[Instance]) -> Iterator[dict[str, str]]:
        """The rows of `prompts.jsonl`."""
        for instance in instances:
            name = instance.instance_id
            yield {"instance_id": name, "prompt": self[name]}


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
    instances: Iterable[Instance],
    prompts: _Prompts,
    form: AnswerForm,
    not_taught: dict[str, str],
) -> Iterator[SftRow]:
    """Supervised rows of the training split; `not_taught` receives the reasons of those without."""
    for instance in instances:
        if instance.split != "train":
            continue
        try:
            answer = render_answer(form, instance)
        except ValueError as error:
            not_taught[instance.instance_id] = str(error)
            continue
        yield SftRow(instance.instance_id, prompts[instance.instance_id], answer)


_SHOWN = 5
"""Findings that an error names; `leakage.jsonl` has them all."""


def _guard(
    context: StageContext,
    instances: Sequence[Instance],
    facts: Mapping[str, Facts],
    heldout: frozenset[str],
) -> dict[str, str]:
    """Looks what training and evaluation share, and writes it down.

    Returns:
        The training instances to drop for it, with the reason.

    Raises:
        DataError: They share something, and the recipe does not allow it.
    """
    policy = context.recipe.data.leakage
    back = _those(instances, heldout.__contains__)
    rest = _those(instances, lambda name: name not in heldout)
    found = find_leakage(back, rest if back else (), facts)
    write_rows(context.dir.file("leakage.jsonl"), (f.row() for f in found.findings))
    if found.findings and policy == "refuse":
        raise DataError(
            f"Training and held-out instances share something, in {len(found.findings)} "
            "findings:\n"
            + "\n".join(f"  {finding}" for finding in found.findings[:_SHOWN])
            + ("\n  …" if len(found.findings) > _SHOWN else ""),
            hint=f"All of them: {context.dir.file('leakage.jsonl')}. Split by repo, or "
            'set [data] leakage = "drop" to leave the training instances out '
            f'({len(found.train)}), or "allow" to go on and say so in the model card.',
        )
    reason = "shares something with held-out instances: see leakage.jsonl"
    leaking = dict.fromkeys(sorted(found.train), reason) if policy == "drop" else {}
    sides: dict[str, Counter[str]] = {"train": Counter(), "heldout": Counter()}
    for name in (i.instance_id for i in instances):
        if name not in leaking and (benchmark := public_test(facts[name])):
            sides["heldout" if name in heldout else "train"][benchmark] += 1
    write_json(
        context.dir.file("leakage.json"),
        {
            "policy": policy,
            "train": len(rest) - len(leaking),
            "heldout": len(back),
            "findings": len(found.findings),
            "reasons": Counter(f.reason for f in found.findings),
            "leaking": len(found.train),
            "dropped": len(leaking),
            "examples": [str(finding) for finding in found.findings[:_SHOWN]],
            "public test": sides,
        },
    )
    return leaking
