"""Pairs in a terminal: hostile texts stay texts, and colours say which is which."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from swebench_trainer.reporting.preferences import (
    counts,
    example,
    limiting,
    origins,
    surface,
    to_show,
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


STATS = {
    "pairs": 3,
    "by strategy": {"s": 3},
    "by tier": {"fails": 2, "[red]x": 1},
    "by chosen": {"gold": 3},
    "by repository": {f"demo/{n:02}": 1 for n in range(14)},
    "by instance": {"demo-0": 3},
    "lengths": {"chosen longer": 1, "alike": 2, "rejected longer": 0},
    "dropped by plugins": {EVIL: 2},
    "limits": {"max_format": 4, "mix.fails": 2, "no candidate passes": 7},
    "surface": None,
}


def test_an_example_starts_where_the_answers_part_and_is_coloured() -> None:
    text = example(pair(), 3)
    words = text.plain
    assert "+ ⋮ 2 lines in which both are alike\n+ c\n+ d\n+ good\n" in words
    assert "- ⋮ 2 lines in which both are alike\n- c\n- d\n- bad\n" in words
    assert "⋮ 28 more lines" in words
    styles = {words[span.start : span.end]: span.style for span in text.spans}
    assert styles["+ good\n"] == "green" and styles["- bad\n"] == "red"
    assert example(pair(), 0).plain.count("\n") == 40
    alone = example(pair(rejected=None, rejected_source=""), 0).plain
    assert "+ good" in alone and "\n- " not in alone


def test_no_text_is_markup_or_a_command() -> None:
    evil = pair(chosen=EVIL, rejected=EVIL + "!", rejected_model=EVIL, tier=EVIL)
    out = printed(example(evil, 5), counts(STATS), limiting(STATS)) + "".join(
        origins(evil)
    )
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)
    assert "[bold red]x[/]" in out and "<U+001B>" in out and "│ [red]x" in out


def test_counts_and_limits_are_all_there() -> None:
    words = " ".join(printed(counts(STATS)).split())
    assert "3 pairs" in words and "and 4 more │ 4 │" in words
    words = " ".join(printed(limiting(STATS)).split())
    assert "pairs held back by max_format │ 4" in words
    assert "pairs held back by mix.fails │ 2" in words
    assert "│ no candidate passes │ 7" in words and "dropped: <U+001B>" in words
    empty = {**STATS, "limits": {}, "dropped by plugins": {}}
    assert "nothing" in printed(limiting(empty))


def test_the_surface_is_told_with_what_gives_most_away() -> None:
    assert "Too few" in surface(STATS)[0]
    found = {
        "pairs": 40,
        "told apart": 0.9,
        "ci95": [0.77, 0.96],
        "chosen has more": {"characters": 0.45, "lines": 0.1, "fences": 0.5},
    }
    told, named = surface({**STATS, "surface": found})
    assert "90% of 40 pairs apart (77% to 96%; 50% is blind)" in told
    assert named.endswith("has more: lines 10%, characters 45%, fences 50%.")


def test_examples_are_of_all_tiers_and_always_the_same() -> None:
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
        "rejected: sample:0 (fails) restyled not run",
    ]
