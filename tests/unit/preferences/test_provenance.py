"""Pairs get the models and logs of their answers."""

from __future__ import annotations

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.rules import traced
from swebench_trainer.types import Candidate, Instance, Pair, Status, Verdict


def graded(*models: tuple[str, int]) -> GradedInstance:
    instance = Instance("demo-1", "demo/demo", "0", "It breaks.", "")
    answers = tuple(
        (
            Candidate("demo-1", sample, model, "x", "p"),
            Verdict("demo-1", sample, model, Status.UNRESOLVED),
        )
        for model, sample in models
    )
    return GradedInstance(instance, "prompt", "gold", answers)


def trace(item: GradedInstance, source: str, model: str = "") -> tuple[str, str]:
    pair = Pair("demo-1", "p", "c", "r", "s", "gold", source, "fails", "", model)
    logs = {
        (c.model, "demo-1", c.sample): f"{c.model}.{c.sample}" for c, _ in item.graded
    }
    (found,) = traced([pair], [item], logs, {"demo-1": "gold log"})
    assert (found.chosen_model, found.chosen_log) == ("", "gold log")
    return found.rejected_model, found.rejected_log


def test_the_model_of_a_sample_is_found_if_there_is_only_one() -> None:
    item = graded(("a", 0), ("b", 1))
    assert trace(item, "sample:1") == ("b", "b.1")


def test_a_strategy_must_name_one_of_several_models() -> None:
    item = graded(("a", 0), ("b", 0))
    assert trace(item, "sample:0", "b") == ("b", "b.0")
    assert trace(item, "sample:0") == ("", "")


def test_unknown_sources_stay_without_model_and_logs() -> None:
    item = graded(("a", 0))
    for source in ("", "sample:7", "sample:x", "sample:²", "elsewhere"):
        assert trace(item, source) == ("", "")
