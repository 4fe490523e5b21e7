"""Samples and lengths on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from swebench_trainer.contracts import TokenPart, TokenView
from swebench_trainer.reporting.console import visible
from swebench_trainer.reporting.preview import (
    dropped_table,
    length_histogram,
    marked_lines,
)


def shown(renderable) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable, highlight=False)
    return console.file.getvalue()


def view(*parts: tuple[str, bool, bool]) -> TokenView:
    return TokenView(tuple(TokenPart(*part) for part in parts), 1, 1)


def test_learned_lines_have_a_bar_and_another_color():
    text = marked_lines(
        view(
            ("<s>", False, True),
            ("[INST] Fix\nit [/INST]", False, False),
            (" a\n\nb", True, False),
            ("</s>", True, True),
        ),
        lines=0,
    )
    assert text.plain == "  <s>[INST] Fix\n  it [/INST]\n▌… a\n▌ \n▌ b</s>\n"
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles[" a"] == "green"
    assert styles["<s>"] == styles["</s>"] == "bold magenta"
    assert "it [/INST]" not in styles


def test_an_answer_on_its_own_line_is_not_a_continuation():
    text = marked_lines(view(("ask\n", False, False), ("a\n", True, False)), lines=0)
    assert text.plain == "  ask\n▌ a\n"


@pytest.mark.parametrize(("lines", "kept"), [(2, "0 9"), (3, "0 1 9"), (10, "all")])
def test_a_long_prompt_is_shortened_in_the_middle_and_an_answer_is_not(lines, kept):
    prompt = "".join(f"{n}\n" for n in range(10))
    answer = "".join(f"-{n}\n" for n in range(50))
    plain = marked_lines(
        view((prompt, False, False), (answer, True, False)), lines
    ).plain
    assert sum(line.startswith("▌") for line in plain.splitlines()) == 50
    read = [line.strip() for line in plain.splitlines() if line.startswith("  ")]
    if kept == "all":
        assert read == [str(n) for n in range(10)]
    else:
        assert [word for word in read if word.isdigit()] == kept.split()
        assert f"⋮ {10 - lines} more lines" in read


def test_texts_contain_no_markup_or_control_sequences():
    hostile = "[red]x[/red] \x1b[2J \u202e \xa0 \u200b é漢\t:bomb:"
    text = marked_lines(view((hostile, False, False)), lines=0)
    assert text.plain == (
        "  [red]x[/red] <U+001B>[2J <U+202E> <U+00A0> <U+200B> é漢\t:bomb:\n"
    )
    assert visible("a\rb") == "a<U+000D>b"
    row = {"from": "run", "cause": "[red]\x1b[2J", "instance_id": "[bold]x"}
    output = shown(dropped_table([row]))
    assert "[red]<U+001B>[2J" in output and "[bold]x" in output


def test_bins_count_every_row_once():
    prompts, answers = [10, 32, 33, 100, 5000], [0, 0, 5, 900, 0]
    out = shown(length_histogram(prompts, answers, 1000))
    rows = {
        cells[0].strip(): [cell.strip().rpartition(" ")[2] for cell in cells[1:]]
        for cells in (line.strip("│").split("│") for line in out.splitlines())
        if len(cells) == 4
    }
    assert rows["32"] == ["2", "1", ""]
    assert rows["64"] == ["1", "", "1"]
    assert rows["128"] == ["1", "", ""]
    assert rows["1,000 = max_tokens"] == ["", "1", "1"]
    assert rows["8,192"] == ["1", "", ""]
    assert "16,384" not in rows
    assert rows["median"] == ["33", "5", "38"]
    assert rows["maximum"] == ["5,000", "900", "1,000"]


def test_a_single_prompt_without_an_answer_has_a_histogram():
    out = shown(length_histogram([7], [0], 4096))
    assert "32" in out and "4,096" not in out


def test_dropped_rows_are_counted_by_cause_with_examples():
    rows = [{"from": "sft", "cause": "long", "instance_id": f"i-{n}"} for n in range(5)]
    rows.append({"from": "run", "cause": "empty", "instance_id": "j"})
    lines = [line for line in shown(dropped_table(rows)).splitlines() if "│" in line]
    assert "long" in lines[0] and " 5 " in lines[0] and "i-0, i-1, i-2" in lines[0]
    assert "i-3" not in lines[0]
    assert "empty" in lines[1]
