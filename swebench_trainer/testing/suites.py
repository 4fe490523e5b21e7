"""Contract checks for the other kinds of plugins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from swebench_trainer.contents.directory import Directory
from swebench_trainer.contracts import (
    GradedInstance,
    GradeJob,
    Grader,
    PairStrategy,
    PromptInputs,
    PromptStyle,
    Publisher,
    Source,
)
from swebench_trainer.preferences.rules import BrokenRuleError, PairRules
from swebench_trainer.testing.assertions import as_assertions, as_in_runs
from swebench_trainer.testing.examples import a_graded_instance, an_ungraded_instance
from swebench_trainer.types import Candidate, Instance, Pair, Status, Tier


def check_source(make: Callable[[], Source]) -> None:
    """Check a source against its contract. `make` opens the same data each time."""
    with as_assertions():
        first, second = (as_in_runs(make(), "source").load() for _ in range(2))
    assert first == second, "load() must return the same instances each time"
    assert first.instances, "the example data must hold an instance"
    same = make().digest() == make().digest()
    assert same, "digest() must not change while the data stays the same"
    assert all(reason for _, reason in first.dropped), "a dropped row needs a reason"


def check_prompt_style(style: PromptStyle, instance: Instance) -> None:
    """Check a prompt style against its contract."""
    material = PromptInputs(lambda: Directory(instance.snapshot), tokens=len)
    with as_assertions():
        prompt = as_in_runs(style, "prompt style").render(instance, material)
    again = style.render(instance, material)
    assert prompt == again, "render() must be deterministic"
    assert instance.problem_statement in prompt.text, "the prompt must have the issue"
    assert instance.patch not in prompt.text, "the prompt must not have the gold patch"
    for path, ranges in (prompt.shown or {}).items():
        lines = (material.tree().read(path) or b"").decode().split("\n")
        for shown in ranges:
            text = "\n".join(lines[shown.start : shown.stop])
            assert text in prompt.text, f"the prompt lacks lines of {path} in shown"
    assert getattr(style, "context", "a name"), "context must not be empty"


def check_grader(grader: Grader, instance: Instance, folder: Path) -> None:
    """Check a grader against its contract, on an instance that it can grade."""
    gold = Candidate(instance.instance_id, 0, "gold", text="", patch=instance.patch)
    wrong = dataclasses.replace(gold, sample=1, patch="not a patch\n")
    jobs = [
        GradeJob(instance, candidate, folder / str(candidate.sample))
        for candidate in (gold, wrong)
    ]
    try:
        grader.check([instance])
        with as_assertions():
            graded = list(as_in_runs(grader, "grader").grade(jobs))
        found = {job.candidate.sample: outcome.status for job, outcome in graded}
    finally:
        grader.close()
    assert found == {0: Status.RESOLVED, 1: Status.NOT_APPLIED}, found


def check_pair_strategy(
    strategy: PairStrategy, *, one_sided: bool = False, graded: bool = True
) -> None:
    """Check a pair strategy against its contract, on a few small instances.

    The instances come from `a_graded_instance`, or from `an_ungraded_instance` for a
    strategy that does not need grades.

    Args:
        strategy: A strategy.
        one_sided: Value of `PairsTable.one_sided`: pairs may have only one answer.
        graded: Value of `PairsTable.needs_grades`.
    """
    make = a_graded_instance if graded else an_ungraded_instance
    given = [make(n) for n in range(3)]
    pairs = _pairs_of(strategy, given, one_sided)
    again = _pairs_of(strategy, given, one_sided)
    assert pairs == again, "pairs() must be deterministic"
    for turned in (given[::-1], [*given[1:], given[0]]):
        again = _pairs_of(strategy, turned, one_sided)
        same = sorted(pairs, key=repr) == sorted(again, key=repr)
        assert same, "pairs must not depend on the order of instances"
    for pair in pairs:
        assert pair.strategy, "a pair must name its strategy"
        sided = [
            (pair.chosen, pair.chosen_source),
            (pair.rejected, pair.rejected_source),
        ]
        for text, source in sided:
            assert bool(source) == (text is not None), "every answer needs a source"
        is_status = pair.tier in STATUSES and pair.tier not in set(Tier)
        assert pair.tier and (pair.rejected is None or not is_status), (
            f"the tier of a pair must be a Tier or a word of the strategy's own, not "
            f"{pair.tier!r}"
        )
        if not graded:  # PairRules covers what verdicts forbid
            _check_ungraded_pair(pair)
    assert not _pairs_of(strategy, [], one_sided), "no instances, no pairs"


STATUSES = frozenset(map(str, Status))


def _check_ungraded_pair(pair: Pair) -> None:
    assert _word(pair.chosen) in (None, "gold"), "an ungraded candidate was chosen"
    rejected = _word(pair.rejected)
    assert rejected != "repeat", "a candidate with gold's patch was rejected"
    right = rejected != "guess" or pair.tier == Tier.UNGRADED
    assert right, "the tier of an ungraded patch must be Tier.UNGRADED"


def _word(answer: str | None) -> str | None:
    """The first word of an example's answer, which names its result."""
    return answer.split()[0] if answer else answer


def _pairs_of(
    strategy: PairStrategy, graded: Sequence[GradedInstance], one_sided: bool
) -> list[Pair]:
    guarded = as_in_runs(strategy, "pair strategy")
    with as_assertions():
        try:
            return list(PairRules(one_sided).checked(guarded.pairs(graded), graded))
        except BrokenRuleError as error:
            raise AssertionError(f"the strategy {error.problem}") from error


def check_publisher(publisher: Publisher, folder: Path) -> None:
    """Check a publisher against its contract; `folder` is an empty directory."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text("made by swebench-trainer\n")
    publisher.check()
    assert publisher.publish(folder), "publish() must return the release's location"
    assert (folder / "README.md").exists(), "publish() must not change the release"
