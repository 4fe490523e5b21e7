from __future__ import annotations

import io

from rich.console import Console

from swebench_trainer.reporting.run_report import sparkline, training_curves


def shown(table) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_a_curve_follows_its_values():
    assert sparkline([7, 6, 5, 4, 3, 2, 1, 0]) == "█▇▆▅▄▃▂▁"
    assert sparkline([1.0, 1.0]) == "▁▁"


def test_a_long_curve_shows_means():
    line = sparkline([float(n) for n in range(1000)], width=8)
    assert line == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 2, 4, 6], width=2) == "▁█"


def test_each_training_has_its_loss_and_dpo_its_margin():
    sft = [{"step": n, "loss": 7.0 - n} for n in range(1, 4)]
    dpo = [{"step": n, "loss": 0.7, "rewards/margins": n / 8} for n in range(8)]
    text = shown(training_curves({"sft": sft, "dpo": dpo}))
    rows = [line.split("│") for line in text.splitlines() if "│" in line]
    cells = [tuple(cell.strip() for cell in row[1:-1]) for row in rows]
    assert cells == [
        ("sft", "loss", "3", "6.000", "4.000", "█▅▁"),
        ("dpo", "loss", "7", "0.700", "0.700", "▁▁▁▁▁▁▁▁"),
        ("dpo", "margin", "7", "0.000", "0.875", "▁▂▃▄▅▆▇█"),
    ]


def test_a_run_without_training_has_no_curves():
    assert training_curves({}) is None
    assert training_curves({"sft": []}) is None
