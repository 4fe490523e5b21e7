"""A plugin call that does not return is named in the log, and Ctrl-C still works."""

import logging
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from swebench_trainer import hookimpl
from swebench_trainer.contracts import TrainRequest
from swebench_trainer.errors import PluginFault
from swebench_trainer.events import ItemDone
from swebench_trainer.plugins import faults
from swebench_trainer.plugins.guard import GuardedPlugin
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import SftTable
from swebench_trainer.testing import FakeBackend, some_rows


class Slow:
    def __init__(self, seconds):
        self._seconds = seconds

    @hookimpl
    def item_done(self, event):
        time.sleep(self._seconds)


@pytest.fixture
def slow_after(monkeypatch, caplog):
    def slow_after(seconds):
        monkeypatch.setattr(faults, "SLOW_CALL", seconds)
        caplog.set_level(logging.WARNING)

    return slow_after


def test_a_slow_hook_is_named_once(slow_after, caplog):
    slow_after(0.1)
    plugins = Plugins({})
    plugins.add(Slow(0.4), "slow", "swebench-trainer-slow 2.0")
    plugins.notify(ItemDone("grade", "an item", 1, 2))
    (record,) = caplog.records
    assert (
        "'slow' (swebench-trainer-slow 2.0) has been running item_done"
        in record.message
    )


def test_a_hook_that_returns_in_time_is_not_named(slow_after, caplog):
    slow_after(0.5)
    plugins = Plugins({})
    plugins.add(Slow(0.02), "quick", "swebench-trainer-quick 1.0")
    before = threading.active_count()
    for number in range(30):  # together longer than one call may take
        plugins.notify(ItemDone("grade", "an item", number, 30))
    assert not caplog.records
    assert threading.active_count() <= before + 1


def test_a_slow_method_is_named(slow_after, caplog, tmp_path):
    slow_after(0.1)

    class SlowBackend(FakeBackend):
        def train_sft(self, rows, settings, request):
            time.sleep(0.4)
            return super().train_sft(rows, settings, request)

    request = TrainRequest(tmp_path, None, 8, 0, lambda *_: None)
    guarded = GuardedPlugin(SlowBackend(), "backend", "Backend 'slow' of slow 1")
    guarded.train_sft(some_rows(), SftTable(), request)
    assert "Backend 'slow' of slow 1 has been running train_sft" in caplog.text


def test_ctrl_c_in_a_callback_is_not_blamed_on_the_plugin(tmp_path):
    def step(done, total, detail):
        raise KeyboardInterrupt

    guarded = GuardedPlugin(FakeBackend(), "backend", "Fake")
    request = TrainRequest(tmp_path, None, 8, 0, step)
    with pytest.raises(KeyboardInterrupt):
        guarded.train_sft(some_rows(), SftTable(), request)
    with pytest.raises(PluginFault):
        guarded.train_sft(None, SftTable(), request)


PROGRAM = """
import sys, time
from pathlib import Path
from swebench_trainer import hookimpl
from swebench_trainer.testing import Trainer

class Hangs:
    @hookimpl
    def item_done(self, event):
        if event.stage == "generate" and event.done == 3 and "hang" in sys.argv:
            print("hanging", flush=True)
            time.sleep(600)

trainer = Trainer(Path(sys.argv[1]))
trainer.add(Hangs(), "hangs", "swebench-trainer-hangs 1.0")
try:
    trainer.run(until="generate")
finally:
    print(trainer.last.output)
"""


def test_ctrl_c_stops_a_run_that_waits_for_a_plugin_and_the_run_resumes(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    process = subprocess.Popen(
        [*command, "hang"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode != 0 and "KeyboardInterrupt" in err
    rows = tmp_path / "runs/test/stages/generate/candidates.jsonl"
    kept = rows.read_text().splitlines()
    assert len(kept) == 3
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"generate +\S", done.stdout)
    assert rows.read_text().splitlines()[:3] == kept
