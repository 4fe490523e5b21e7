"""Pairs in a terminal: colors mark the sides, and hostile text stays text."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from swebench_trainer.contracts import Bottlenecks, MissingForPair
from swebench_trainer.reporting.pairs import (
    bottleneck_lines,
    counts,
    example,
    limiting,
    origins,
    surface,
    to_show,
)
from swebench_trainer.reporting.summaries import (
    LengthCounts,
    PairStats,
    SurfaceAccuracy,
)
from swebench_trainer.types import Pair

EVIL = "\x1b]0;owned\x07[bold red]x[/] \u202e \x9b2J"


def pair(number: int = 0, tier: str = "fails", **changes) -> Pair:
    fields = {
        "chosen": "a\nb\nc\nd\ngood\n",
        "rejected": "a\nb\nc\nd\nbad\n",
        "chosen_source": "gold",
        "rejected_source": "sample:0",
        **changes,
    }
    return Pair(f"demo-{number}", prompt="p\n" * 30, strategy="s", tier=tier, **fields)


def printed(*shown) -> str:
    out = StringIO()
    console = Console(file=out, force_terminal=False, width=120)
    for item in shown:
        console.print(item, highlight=False)
    return out.getvalue()


STATS = PairStats(
    strategy="s",
    graded=True,
    pairs=3,
    instances=2,
    by_strategy={"s": 3},
    by_tier={"fails": 2, "[red]x": 1},
    by_chosen={"gold": 3},
    by_repository={f"demo/{n:02}": 1 for n in range(14)},
    by_instance={"demo-0": 3},
    restyled=0,
    compared_by_changed_lines=0,
    lengths=LengthCounts(chosen_longer=1, similar=2, rejected_longer=0),
    surface=None,
    dropped_by_plugins={EVIL: 2},
    bottlenecks=Bottlenecks(
        missing={MissingForPair.NO_PASS: 7},
        held_back={"max_format": 4, "mix.fails": 2},
        other={"moon phase": 1},
    ),
)


def test_an_example_starts_where_the_answers_differ_and_is_colored() -> None:
    text = example(pair(), 3)
    words = text.plain
    assert "+ ⋮ 2 identical lines\n+ c\n+ d\n+ good\n" in words
    assert "- ⋮ 2 identical lines\n- c\n- d\n- bad\n" in words
    assert "⋮ 28 more lines" in words
    styles = {words[span.start : span.end]: span.style for span in text.spans}
    assert styles["+ good\n"] == "green" and styles["- bad\n"] == "red"
    assert example(pair(), 0).plain.count("\n") == 40
    alone = example(pair(rejected=None, rejected_source=""), 0).plain
    assert "+ good" in alone and "\n- " not in alone


def test_no_text_acts_as_markup_or_as_a_command() -> None:
    evil = pair(chosen=EVIL, rejected=EVIL + "!", rejected_model=EVIL, tier=EVIL)
    out = printed(example(evil, 5), counts(STATS), limiting(STATS)) + "".join(
        origins(evil)
    )
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)
    assert "[bold red]x[/]" in out and "<U+001B>" in out and "│ [red]x" in out


def test_all_counts_and_bottlenecks_are_shown() -> None:
    words = " ".join(printed(counts(STATS)).split())
    assert "3 pairs" in words and "4 more │ 4 │" in words
    words = " ".join(printed(limiting(STATS)).split())
    assert "pairs held back by max_format │ 4" in words
    assert "pairs held back by mix.fails │ 2" in words
    assert "│ instances: no candidate passes │ 7" in words
    assert "│ moon phase │ 1" in words and "dropped: <U+001B>" in words
    empty = replace(STATS, bottlenecks=Bottlenecks(), dropped_by_plugins={})
    assert "nothing" in printed(limiting(empty))


def test_every_bottleneck_has_a_label() -> None:
    lines = bottleneck_lines(Bottlenecks(dict.fromkeys(MissingForPair, 1)))
    assert len({label for label, _ in lines}) == len(MissingForPair)


def test_the_surface_accuracy_is_shown_with_the_strongest_features() -> None:
    assert "too few pairs" in surface(STATS)[0]
    found = SurfaceAccuracy(
        pairs=40,
        accuracy=0.9,
        ci95=(0.77, 0.96),
        chosen_higher={"characters": 0.45, "blank_lines": 0.1, "fences": 0.5},
    )
    accuracy, named = surface(replace(STATS, surface=found))
    assert "accuracy on 40 pairs: 90% (77% to 96%; 50% = chance)" in accuracy
    assert named.endswith("value: blank lines 10%, characters 45%, fences 50%.")


def test_examples_cover_all_tiers_and_are_always_the_same() -> None:
    pairs = [pair(n, "fails") for n in range(9)] + [pair(9, "malformed")]
    shown = to_show(pairs, 3)
    assert {p.tier for p in shown} == {"fails", "malformed"} and len(shown) == 3
    assert to_show(pairs, 3) == shown and to_show([], 3) == []


def test_origins_lead_to_models_and_logs() -> None:
    lines = origins(
        pair(
            chosen_source="sample:2",
            chosen_model="m",
            chosen_log="stages/grade/x",
            chosen_tier="fails",
            restyled=True,
        )
    )
    assert lines == [
        "chosen: sample:2 of m (fails) logs: stages/grade/x",
        "rejected: sample:0 (fails) restyled not graded",
    ]
