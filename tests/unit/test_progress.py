"""Progress on the console: bars on a terminal, lines elsewhere, text verbatim."""

import io
import re
import time

from rich.console import Console

from swebench_trainer.events import (
    ItemDone,
    RunStarted,
    StageFinished,
    StageStarted,
)
from swebench_trainer.progress import ConsoleObserver


def show(tmp_path, *, terminal):
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120)
    observer = ConsoleObserver(console, every=0)
    observer.run_started(RunStarted(tmp_path, ("grade",), 2))
    observer.stage_started(StageStarted("grade", resumed=True))
    for n in range(1, 4):
        time.sleep(0.02)
        observer.item_done(ItemDone("grade", f"i-{n}", n, 3, "not [red]found[/oops]"))
    if observer._bar:
        observer._bar.refresh()
    observer.stage_finished(StageFinished("grade", 1.25, {"resolved": 2}))
    return output.getvalue()


def test_lines_are_printed_without_a_terminal(tmp_path):
    lines = show(tmp_path, terminal=False).splitlines()
    assert lines[0].endswith("(attempt 2)")
    assert lines[1] == "grade     resumes"
    assert lines[2] == "grade     1/3, latest: not [red]found[/oops]"
    assert lines[-1] == "grade           1.2 s  resolved 2"
    assert "\x1b" not in "".join(lines)


def test_a_terminal_shows_a_bar_with_rate_and_remaining_time(tmp_path):
    text = show(tmp_path, terminal=True)
    assert "━" in text and "3/3" in text
    assert re.search(r"\d/s|s each", text), "no rate"
    assert re.search(r"\d:\d\d:\d\d.*(\d|-):(\d\d|--):", text), "no time left"
    assert "not [red]found[/oops]" in text
