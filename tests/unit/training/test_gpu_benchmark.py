"""The GPU benchmark, with a model small enough for a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow  # nine trainings
def test_the_benchmark_measures_every_row():
    command = [sys.executable, "benchmarks/training.py", "--gpu"]
    done = subprocess.run(
        [*command, "--shape", "tiny", "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("|")
    ]
    speeds = {row[0]: row[1:] for row in rows if row[0].startswith(("SFT", "DPO"))}
    moved = {tuple(row[:2]): row[2] for row in rows if row[0].startswith("5e-")}
    assert len(speeds) == 5
    assert all(float(rate) > 0 for rate, *_ in speeds.values())
    losses = {row[-1].split(",")[0] for name, row in speeds.items() if "SFT" in name}
    assert len(losses) == 1
    assert moved["5e-07", "fp32"] == moved["5e-06", "fp32"] == "100.0%"
    assert float(moved["5e-07", "bf16 (TRL)"].rstrip("%")) < 10
