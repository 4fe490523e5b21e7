"""The suite for pair strategies finds what is wrong with each of these."""

import dataclasses

import pytest

from swebench_trainer.testing import (
    a_graded_instance,
    an_ungraded_instance,
    check_pair_strategy,
)
from swebench_trainer.types import Pair, Status, Tier


class Strategy:
    """Pairs as a function of an instance says, of those instances that `of` leaves."""

    def __init__(self, made, of=lambda graded: graded):
        self.made, self.of = made, of

    def pairs(self, graded):
        return [pair for item in self.of(graded) for pair in self.made(item)]


def pair(item, chosen, rejected, tier=Tier.FAILS):
    name = item.instance.instance_id
    return Pair(
        name,
        item.prompt,
        chosen,
        rejected,
        "mine",
        chosen_source=source(item, chosen),
        rejected_source=source(item, rejected),
        tier=tier,
    )


def source(item, text):
    candidates = [c for c, _ in item.graded] + list(item.ungraded)
    return {item.gold: "gold"}.get(text) or next(
        f"sample:{c.sample}" for c in candidates if c.text == text
    )


def answers(item):
    candidates = [c for c, _ in item.graded] + list(item.ungraded)
    written = {c.text.rsplit(" ", 1)[0]: c.text for c in candidates}
    return written | {"gold": item.gold}


def good(item):
    return [pair(item, answers(item)["pass"], answers(item)["fail"])]


def guess(item):
    text = item.ungraded[0].text
    return [pair(item, item.gold, text, Tier.UNGRADED)]


def test_the_good_ones_pass():
    check_pair_strategy(Strategy(good))
    check_pair_strategy(Strategy(guess), graded=False)
    check_pair_strategy(
        Strategy(lambda item: [pair(item, item.gold, answers(item)["fail"], "my word")])
    )


@pytest.mark.parametrize(
    "of",
    [
        lambda graded: graded[:2],
        lambda graded: graded[-1:],
        lambda graded: graded[1:2],
    ],
)
def test_what_depends_on_the_order_of_instances(of):
    with pytest.raises(AssertionError, match="order of instances"):
        check_pair_strategy(Strategy(good, of))


def test_pairs_in_the_order_of_instances_are_the_same_pairs():
    check_pair_strategy(Strategy(good, lambda graded: graded[::-1]))


@pytest.mark.parametrize("tier", [Status.UNRESOLVED, "infra_error", ""])
def test_a_tier_that_is_none(tier):
    with pytest.raises(AssertionError, match="a Tier or a word"):
        check_pair_strategy(
            Strategy(lambda item: [pair(item, item.gold, answers(item)["fail"], tier)])
        )


@pytest.mark.parametrize(
    ("chosen", "rejected", "match"),
    [
        ("flagged", "fail", "is an untrusted pass"),
        ("masked", "fail", "a masked verdict"),
        ("pass", "flaky", "rejected answer is flaky"),
        ("fail", "broken", "without a chosen_tier"),
        ("gold", "pass", "rejected answer passes"),
    ],
)
def test_verdicts_that_are_no_lesson(chosen, rejected, match):
    def made(item):
        return [pair(item, answers(item)[chosen], answers(item)[rejected])]

    with pytest.raises(AssertionError, match=match):
        check_pair_strategy(Strategy(made))


@pytest.mark.parametrize(
    ("chosen", "rejected", "tier", "match"),
    [
        (0, 1, Tier.UNGRADED, "an ungraded candidate was chosen"),
        (None, 2, Tier.UNGRADED, "gold's patch was rejected"),
        (None, 0, Tier.FAILS, "must be Tier.UNGRADED"),
    ],
)
def test_what_nobody_has_graded(chosen, rejected, tier, match):
    def made(item):
        texts = [candidate.text for candidate in item.ungraded]
        better = item.gold if chosen is None else texts[chosen]
        return [pair(item, better, texts[rejected], tier)]

    with pytest.raises(AssertionError, match=match):
        check_pair_strategy(Strategy(made), graded=False)


def test_the_worse_of_two_failures():
    def made(item):
        worse = pair(item, answers(item)["broken"], answers(item)["fail"])
        return [dataclasses.replace(worse, chosen_tier=Tier.NOT_APPLIED)]

    with pytest.raises(AssertionError, match="prefers the worse answer"):
        check_pair_strategy(Strategy(made))


def test_words_that_no_ungraded_candidate_wrote():
    def made(item):
        return [dataclasses.replace(guess(item)[0], rejected="my own")]

    with pytest.raises(AssertionError, match="is not the text of sample:0"):
        check_pair_strategy(Strategy(made), graded=False)


def test_the_examples_are_what_a_run_gives():
    assert not a_graded_instance().ungraded
    item = an_ungraded_instance()
    assert not item.graded and item.ungraded[2].patch == item.instance.patch
