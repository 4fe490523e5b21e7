"""A plugin that breaks its contract is named, and the run keeps what it has."""

import errno
import logging
import re
from itertools import count

import pytest

from swebench_trainer import hookimpl
from swebench_trainer.contracts import Bottlenecks, Outcome, Sample, SourceData
from swebench_trainer.errors import PluginError, PluginFault, StageError, TrainerError
from swebench_trainer.testing import (
    FakeBackend,
    FakeGrader,
    FakeSource,
    an_instance,
    assert_no_secrets,
)
from swebench_trainer.testing.fakes import FakeSourceTable
from swebench_trainer.types import Pair, Status

pytest_plugins = ["swebench_trainer.testing.fixtures"]

ORIGIN = "swebench-trainer-odd 1.2"


class Odd:
    """A plugin with one replaceable factory."""

    def __init__(self, kind, factory):
        self.factory = factory

        def register_it(register):
            register("odd", lambda table: self.factory(table))

        setattr(self, f"register_{kind}", hookimpl(register_it))


@pytest.fixture
def odd(trainer):
    def odd(kind, factory=lambda table: None):
        return trainer.add(Odd(kind, factory), "odd", ORIGIN)

    return odd


def sampling(*answers):
    """A backend that answers two requests well, and then as it is told."""

    class Backend(FakeBackend):
        def open_sampler(self, weights, *, batch_size):
            sampler = super().open_sampler(weights, batch_size=batch_size)
            sample = sampler.sample

            def odd(requests):
                good = list(sample(requests))
                yield from good[:2]
                for answer in answers:
                    yield answer(good) if callable(answer) else answer

            sampler.sample = odd
            return sampler

    return lambda table: Backend()


def raises(error):
    def answer(good):
        raise error

    return answer


ANSWERS = {
    "None": (None, "gave None, not a Sample, from sample"),
    "a text": ("diff", "gave a str, not a Sample, from sample"),
    "a stranger": (
        Sample("else", 0, "x"),
        "answered else #0, which was not requested",
    ),
    "twice": (lambda good: good[0], "answered example__greet-1 #0 twice"),
    "no text": (
        lambda good: Sample(good[2].instance_id, good[2].sample, None),
        "gave a Sample with the wrong text (None: input should be a valid string)",
    ),
    "bytes as patch": (
        lambda good: Sample(good[2].instance_id, good[2].sample, "", patch=b"diff"),
        "gave a Sample with the wrong patch",
    ),
    "an error": (
        raises(LookupError("no such model")),
        "failed in sample: LookupError: no such model (test_contract_violations.py, line",
    ),
    "an exit": (raises(SystemExit(3)), "failed in sample: SystemExit: 3"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_sampler_is_named_and_its_answers_are_kept(trainer, odd, case):
    answer, complaint = ANSWERS[case]
    plugin = odd("backends", sampling(answer))
    with pytest.raises(PluginFault, match=re.escape(complaint)) as caught:
        trainer.run(model={"use": "odd"}, until="generate")
    assert str(caught.value).startswith(f"Backend 'odd' of {ORIGIN} ")
    assert "the same command resumes" in caught.value.hint
    kept = trainer.last.rows("generate", "candidates.jsonl")
    assert len(kept) == 2
    log = (trainer.last.dir / "logs/attempt_1/swebench-train.log").read_text()
    assert "PluginFault" in log and "Traceback" in log

    plugin.factory = lambda table: FakeBackend()
    again = trainer.run(model={"use": "odd"}, until="generate")
    assert again.rows("generate", "candidates.jsonl")[:2] == kept
    assert len(again.hooks.of("item_done", "generate")) == 14


@pytest.mark.parametrize("kind", [LookupError, TrainerError])
def test_an_error_that_repeats_a_key_writes_it_nowhere(trainer, odd, monkeypatch, kind):
    monkeypatch.setenv("ODD_API_KEY", "sk-0123456789abcdef")
    odd("backends", sampling(raises(kind("Bearer sk-0123456789abcdef is wrong"))))
    with pytest.raises(TrainerError):
        trainer.run(model={"use": "odd"}, until="generate")
    assert_no_secrets(trainer.last, "ODD_API_KEY")
    log = (trainer.last.dir / "logs/attempt_1/swebench-train.log").read_text()
    assert "Bearer $ODD_API_KEY is wrong" in log
    (failed,) = trainer.last.hooks.of("stage_failed")
    assert "Bearer $ODD_API_KEY is wrong" in failed.error


def test_a_writer_without_any_answer_is_named(trainer, odd):
    class Mute(FakeBackend):
        def open_sampler(self, weights, *, batch_size):
            sampler = super().open_sampler(weights, batch_size=batch_size)
            sampler.sample = lambda requests: iter(())
            return sampler

    odd("backends", lambda table: Mute())
    with pytest.raises(StageError, match="returned no answer for any") as caught:
        trainer.run(model={"use": "odd"}, until="generate")
    assert caught.value.message.startswith("fake ")


def test_our_errors_and_full_disks_are_not_blamed_on_the_plugin(trainer, odd):
    plugin = odd("backends", sampling(raises(TrainerError("Over budget."))))
    with pytest.raises(TrainerError, match=r"^Over budget\.$"):
        trainer.run(model={"use": "odd"}, until="generate")
    plugin.factory = sampling(raises(OSError(errno.ENOSPC, "full")))
    with pytest.raises(StageError, match="No space left"):
        trainer.run(model={"use": "odd"}, until="generate")


def test_what_a_backend_leaves_out_is_not_offered(trainer, odd):
    class SamplesAlone:
        name = "alone"

        def check(self):
            pass

    odd("backends", lambda table: SamplesAlone())
    with pytest.raises(PluginError, match=r"'odd' .* does not offer train_sft"):
        trainer.run(model={"use": "odd"})


def test_a_factory_that_gives_nothing_or_fails(trainer, odd):
    plugin = odd("backends")
    with pytest.raises(PluginFault, match=r"gave None as its backend, without check"):
        trainer.run(model={"use": "odd"})
    plugin.factory = lambda table: {}["fuel"]
    with pytest.raises(PluginFault, match=r"failed in its factory: KeyError: 'fuel'"):
        trainer.run(model={"use": "odd"})


class OddGrader(FakeGrader):
    """Grades well until its fifth job."""

    def __init__(self, last):
        super().__init__()
        self._last = last

    def grade(self, jobs):
        decided = list(super().grade(jobs))
        yield from decided[:4]
        yield from self._last(decided)


OUTCOMES = {
    "no pair": (lambda decided: ["passed"], "gave a str from grade, not a"),
    "no outcome": (lambda decided: [(decided[4][0], "passed")], "gave a str, not an"),
    "twice": (lambda decided: decided[:1], "#0 twice, or without a request"),
    "no status": (
        lambda decided: [(decided[4][0], Outcome("resolved", {}))],
        "gave a Outcome with the wrong status",
    ),
    "some missing": (lambda decided: [], "ended without deciding 4 of 8 jobs"),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_a_grader_is_named_and_its_verdicts_are_kept(trainer, odd, case):
    last, complaint = OUTCOMES[case]
    complaint = complaint.replace("not an", "not a Outcome")
    plugin = odd("graders", lambda table: OddGrader(last))
    with pytest.raises(PluginFault, match=complaint):
        trainer.run(grade={"use": "odd"}, until="admit")
    kept = trainer.last.rows("admit", "verdicts.jsonl")
    assert len(kept) == 4
    plugin.factory = lambda table: FakeGrader()
    again = trainer.run(grade={"use": "odd"}, until="admit")
    assert len(again.hooks.of("item_done", "admit")) == 4


def a_pair(**changes):
    def pair(graded):
        fields = {
            "instance_id": graded[0].instance.instance_id,
            "prompt": graded[0].prompt,
            "chosen": graded[0].gold,
            "rejected": graded[0].graded[0][0].text,
            "strategy": "odd",
            "chosen_source": "gold",
            "rejected_source": "sample:0",
            "tier": Status.UNRESOLVED,
        }
        return Pair(**(fields | changes))

    return pair


def upside_down(graded):
    """A failure preferred to a pass."""
    for item in graded:
        by_reward = {verdict.reward: c for c, verdict in item.graded}
        if {0, 1} <= by_reward.keys():
            return a_pair(
                chosen=by_reward[0].text,
                chosen_source=f"sample:{by_reward[0].sample}",
                chosen_tier="fails",
                rejected=by_reward[1].text,
                rejected_source=f"sample:{by_reward[1].sample}",
            )([item])
    raise AssertionError("nothing passes and fails")


def a_failure_chosen(graded):
    """A failure, as if it passed, preferred to another candidate."""
    item, failure = next(
        (item, candidate)
        for item in graded
        for candidate, verdict in item.graded
        if verdict.reward == 0
    )
    other = next(c for c, _ in item.graded if c.text != failure.text)
    return a_pair(
        chosen=failure.text,
        chosen_source=f"sample:{failure.sample}",
        rejected=other.text,
        rejected_source=f"sample:{other.sample}",
    )([item])


PAIRS = {
    "nothing": (lambda graded: None, "'NoneType' object is not iterable"),
    "tuples": (lambda graded: [("good", "bad")], "gave a tuple, not a Pair"),
    "a stranger": (
        lambda graded: [a_pair(instance_id="else")(graded)],
        "made a pair of 'else' which is not one of its instances",
    ),
    "half a pair": (
        lambda graded: [a_pair(rejected=None)(graded)],
        "with only one answer",
    ),
    "one answer": (
        lambda graded: [a_pair(rejected=graded[0].gold)(graded)],
        "whose two answers are the same",
    ),
    "another prompt": (
        lambda graded: [a_pair(prompt="else")(graded)],
        "with another prompt",
    ),
    "nothing as the good answer": (
        lambda graded: [a_pair(chosen=" ")(graded)],
        "whose chosen answer is empty",
    ),
    "the same twice": (
        lambda graded: [a_pair()(graded)] * 2,
        "made a pair of '.*' twice",
    ),
    "a sample that is not there": (
        lambda graded: [a_pair(rejected_source="sample:99")(graded)],
        "from 'sample:99', which is not one of its candidates",
    ),
    "the worse one as the better": (
        lambda graded: [upside_down(graded)],
        "whose rejected answer passes",
    ),
    "text that cannot be written": (
        lambda graded: [a_pair(rejected="\ud800")(graded)],
        "with text that is not valid Unicode",
    ),
    "its own words as gold": (
        lambda graded: [a_pair(chosen="good")(graded)],
        "whose chosen answer is not the gold answer",
    ),
    "its own words as a pass": (
        lambda graded: [a_pair(chosen="good", chosen_source="sample:0")(graded)],
        "whose chosen answer is not the text of sample:0",
    ),
    "its own words as a failure": (
        lambda graded: [a_pair(rejected="bad")(graded)],
        "whose rejected answer is not the text of sample:0",
    ),
    "a failure as the good answer": (
        lambda graded: [a_failure_chosen(graded)],
        "whose chosen answer fails, without a chosen_tier",
    ),
    "pairs without end": (
        lambda graded: (a_pair(tier=f"odd {n}")(graded) for n in count()),
        "beyond max_per_instance = 4",
    ),
    "the name of another": (
        lambda graded: [a_pair(strategy="tiered")(graded)],
        "under the strategy name 'tiered'",
    ),
    "a number as tier": (
        lambda graded: [a_pair(tier=3)(graded)],
        "gave a Pair with the wrong tier",
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_pair_strategy_is_named(trainer, odd, case):
    pairs, complaint = PAIRS[case]

    class Strategy:
        def pairs(self, graded):
            return pairs(graded)

    odd("pair_strategies", lambda table: Strategy())
    with pytest.raises(PluginFault, match=complaint) as caught:
        trainer.run(pairs={"use": "odd"}, until="pairs")
    assert f"Pair strategy 'odd' of {ORIGIN}" in str(caught.value)
    assert trainer.last.hooks.stages()[-1] == "grade"


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        (None, "returned None from limits, not a Mapping"),
        ({"a reason": "3"}, "not a count"),
        (Bottlenecks({"a reason": 3}), "Bottlenecks with the wrong missing"),
    ],
)
def test_limits_of_a_pair_strategy_are_counts(trainer, odd, limits, complaint):
    class Strategy:
        def pairs(self, graded):
            return [a_pair()(graded)]

        def limits(self, graded):
            return limits

    odd("pair_strategies", lambda table: Strategy())
    with pytest.raises(PluginFault, match=complaint) as caught:
        trainer.run(pairs={"use": "odd"}, until="pairs")
    assert f"Pair strategy 'odd' of {ORIGIN}" in str(caught.value)


def test_limits_of_a_pair_strategy_are_reported(trainer, odd):
    class Strategy:
        def pairs(self, graded):
            return []

        def limits(self, graded):
            return {"moon phase": 2, "max_per_instance": 1}

    odd("pair_strategies", lambda table: Strategy())
    with pytest.raises(StageError, match="moon phase: 2") as caught:
        trainer.run(pairs={"use": "odd"}, until="pairs")
    assert "pairs held back by max_per_instance: 1" in str(caught.value)


LOADS = {
    "a list": (lambda: [an_instance()], "returned a list from load, not a SourceData"),
    "rows": (
        lambda: SourceData(({"instance_id": "x"},)),
        "gave a dict, not a Instance",
    ),
    "one id twice": (
        lambda: SourceData((an_instance(), an_instance())),
        "gave the instance 'example__greet-1' twice",
    ),
    "a list of tests": (
        lambda: SourceData((an_instance(FAIL_TO_PASS=["test_greet"]),)),
        "gave a Instance with the wrong FAIL_TO_PASS",
    ),
}


@pytest.mark.parametrize("case", LOADS)
def test_a_source_is_named(trainer, odd, case):
    load, complaint = LOADS[case]

    class Source(FakeSource):
        def load(self):
            return load()

        def digest(self):
            return "0"

    odd("sources", lambda table: Source(FakeSourceTable(use="odd")))
    with pytest.raises(PluginFault, match=complaint):
        trainer.run(data={"use": "odd", "holdout": {"fraction": 0}}, until="prepare")


def test_a_prompt_style_and_a_publisher_are_named(trainer, odd):
    class Style:
        def render(self, instance, material):
            return "a text"

    class Publisher:
        def check(self):
            pass

        def publish(self, folder):
            return folder

    odd("prompt_styles", lambda table: Style())
    with pytest.raises(PluginFault, match="gave a str, not a Prompt, from render"):
        trainer.run(prompt={"use": "odd", "answer": "diff"}, until="prepare")
    trainer.add(Odd("publishers", lambda table: Publisher()), "odder", "odder 1")
    with pytest.raises(PluginFault, match="not a str"):
        trainer.run(publish={"use": "odd"})
    assert trainer.last.hooks.stages()[-1] == "evaluate"


def test_closing_a_sampler_closes_what_it_was_about(trainer, odd):
    """Whatever holds on to the generator, such as the traceback of an error."""
    order = []

    class Backend(FakeBackend):
        def open_sampler(self, weights, *, batch_size):
            sampler = super().open_sampler(weights, batch_size=batch_size)
            sample = sampler.sample

            def noting(requests):
                try:
                    yield from sample(requests)
                finally:
                    order.append("generator")

            sampler.sample = noting
            sampler.close = lambda: order.append("sampler")
            return sampler

    odd("backends", lambda table: Backend())
    cut = trainer.run(model={"use": "odd"}, until="generate", interrupt=("generate", 2))
    assert cut.interrupted and order == ["generator", "sampler"]


def test_decisions_are_named_and_rows_of_the_report_do_not_end_a_run(trainer):
    class Drops:
        @hookimpl
        def drop_pairs(self, pairs):
            raise LookupError("lost")

    class Reports:
        @hookimpl
        def report_rows(self, run_dir):
            return {"cost": 3}

    trainer.add(Reports(), "reports", "reports 1")
    run = trainer.run()
    assert "plugin 'reports' failed in report_rows" in run.output
    trainer.add(Drops(), "drops", ORIGIN)
    with pytest.raises(
        PluginFault, match=rf"'drops' \({ORIGIN}\) failed in drop_pairs"
    ):
        trainer.run(name="other")


def test_an_observer_that_always_fails_fills_no_log(trainer):
    class Clumsy:
        @hookimpl
        def item_done(self, event):
            raise SystemExit("enough")

    trainer.add(Clumsy(), "clumsy", ORIGIN)
    run = trainer.run(until="admit")
    assert (
        "plugin 'clumsy' failed in item_done (8 times; see the log of this attempt)"
        in run.output
    )
    log = (run.dir / "logs/attempt_1/swebench-train.log").read_text()
    assert log.count("Traceback") == 1


def test_a_hook_that_no_version_calls_is_warned_of(trainer, caplog):
    class Misspelt:
        @hookimpl
        def stage_finish(self, event):
            pass

        @hookimpl(optionalhook=True)
        def of_a_later_version(self, event):
            pass

    trainer.add(Misspelt(), "misspelt", ORIGIN)
    with caplog.at_level(logging.WARNING):
        trainer.run(until="prepare")
    assert "implements stage_finish, which this version never calls" in caplog.text
    assert "of_a_later_version" not in caplog.text
