from __future__ import annotations

import time

import pytest

from swebench_trainer.grading.running_time import LONGEST_STEP, TICK, RunningTime


def test_pauses_of_the_process_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    used = RunningTime()
    for step, total in ((0.5, 0.5), (LONGEST_STEP, 5.5), (3600.0, 5.5 + TICK)):
        now += step
        assert used.seconds() == total
