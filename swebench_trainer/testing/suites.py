"""Contract suites: each holds an implementation to what `contracts` says of its kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swebench_trainer.contents.directory import Directory
from swebench_trainer.contracts import (
    GradedInstance,
    GradeJob,
    Grader,
    Material,
    PairStrategy,
    PromptStyle,
    Publisher,
    Source,
)
from swebench_trainer.testing.as_in_runs import as_assertions, as_held
from swebench_trainer.testing.examples import a_graded_instance
from swebench_trainer.types import Candidate, Instance, Pair, Status


def check_source(make: Callable[[], Source]) -> None:
    """Holds a source to its contract. `make` opens it on the same data each time."""
    with as_assertions():
        first, second = (as_held(make(), "source").load() for _ in range(2))
    assert first == second, "load() must give the same instances each time"
    ids = [i.instance_id for i in first.instances]
    assert ids, "the example data must hold an instance"
    assert len(ids) == len(set(ids)), "instance ids must be unique"
    assert make().digest() == make().digest(), "digest() must not change by itself"
    assert all(reason for _, reason in first.dropped), "every drop needs a reason"


def check_prompt_style(style: PromptStyle, instance: Instance) -> None:
    """Holds a prompt style to its contract."""
    material = Material(lambda: Directory(instance.snapshot), tokens=len)
    with as_assertions():
        prompt = as_held(style, "prompt style").render(instance, material)
    again = style.render(instance, material)
    assert prompt == again, "render() must be deterministic"
    assert instance.problem_statement in prompt.text, "the prompt must hold the issue"
    assert instance.patch not in prompt.text, "the prompt must not hold the gold patch"
    for path, ranges in (prompt.shown or {}).items():
        lines = (material.tree().read(path) or b"").decode().split("\n")
        for shown in ranges:
            text = "\n".join(lines[shown.start : shown.stop])
            assert text in prompt.text, f"what is shown of {path} must be in the prompt"
    assert getattr(style, "context", "a name"), "a context has a name"


def check_grader(grader: Grader, instance: Instance, folder: Path) -> None:
    """Holds a grader to its contract, on an instance that it can grade."""
    gold = Candidate(instance.instance_id, 0, "gold", text="", patch=instance.patch)
    wrong = dataclasses.replace(gold, sample=1, patch="this is no patch\n")
    jobs = [
        GradeJob(instance, candidate, folder / str(candidate.sample))
        for candidate in (gold, wrong)
    ]
    try:
        grader.check([instance])
        with as_assertions():
            graded = list(as_held(grader, "grader").grade(jobs))
        found = {job.candidate.sample: outcome.status for job, outcome in graded}
    finally:
        grader.close()
    assert found == {0: Status.RESOLVED, 1: Status.NOT_APPLIED}, found


def check_pair_strategy(strategy: PairStrategy, *, one_sided: bool = False) -> None:
    """Holds a pair strategy to its contract, on `a_graded_instance` three times.

    Args:
        strategy: A strategy.
        one_sided: Whether its table says that answers may stand alone.
    """
    graded = [a_graded_instance(n) for n in range(3)]
    pairs = _pairs_of(strategy, graded, one_sided)
    assert pairs == _pairs_of(strategy, graded, one_sided), (
        "pairs() must be deterministic"
    )
    prompts = {item.instance.instance_id: item.prompt for item in graded}
    doubtful = ("masked", "flagged", "flaky")
    masked = {f"{word} {n}" for word in doubtful for n in range(3)}
    for pair in pairs:
        assert pair.prompt == prompts[pair.instance_id], (
            "the prompt is the instance's own"
        )
        assert pair.chosen not in masked, "a masked or flagged candidate was chosen"
        assert pair.rejected not in masked, "a masked or flaky candidate was rejected"
        failed = pair.rejected is None or not pair.rejected.startswith("pass")
        assert failed, "a passing candidate was rejected"
        assert pair.strategy, "a pair says which strategy made it"
        for text, source in (
            (pair.chosen, pair.chosen_source),
            (pair.rejected, pair.rejected_source),
        ):
            assert bool(source) == (text is not None), "an answer says where it is from"
    assert not _pairs_of(strategy, [], one_sided), "no instances, no pairs"


def _pairs_of(
    strategy: PairStrategy, graded: Sequence[GradedInstance], one_sided: bool
) -> list[Pair]:
    held = as_held(strategy, "pair strategy", _OneSided(one_sided))
    with as_assertions():
        return list(held.pairs(graded))


@dataclass(frozen=True)
class _OneSided:
    """What is asked of a strategy's table."""

    one_sided: bool


def check_publisher(publisher: Publisher, folder: Path) -> None:
    """Holds a publisher to its contract; `folder` is an empty directory."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text("made by swebench-trainer\n")
    publisher.check()
    assert publisher.publish(folder), "publish() says where the release is now"
    assert (folder / "README.md").exists(), "publish() leaves the release as it was"
