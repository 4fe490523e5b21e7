"""A plugin that does not return is named; the run waits, and can be stopped."""

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
from swebench_trainer.plugins.guard import GuardedPlugin
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.plugins.watchdog import Watchdog
from swebench_trainer.recipe.models import SftTable
from swebench_trainer.testing import FakeBackend, some_requests, some_rows


@pytest.fixture
def told():
    return []


@pytest.fixture
def watchdog(told):
    dog = Watchdog(hook_patience=0.5, call_patience=0.5)
    dog.tell = told.append
    return dog


class Dreamer:
    """Takes its time with items."""

    def __init__(self, seconds):
        self._seconds = seconds

    @hookimpl
    def item_done(self, event):
        time.sleep(self._seconds)


def test_a_hook_that_takes_its_time_is_named(watchdog, told, caplog):
    plugins = Plugins({}, watchdog)
    plugins.add(Dreamer(1.8), "dreamer", "swebench-trainer-dreamer 2.0")
    plugins.notify("item_done", ItemDone("grade", "an item", 1, 2))
    waited = (
        "Still waiting for Plugin 'dreamer' (swebench-trainer-dreamer 2.0) in item_done"
    )
    assert told[0].startswith(waited)
    assert len(told) == 2  # after 0.5 and 1 second more, not after each tick
    assert "Ctrl-C stops the run" in told[0]
    assert "time.sleep(self._seconds)" in caplog.text  # where it stands


def test_one_that_returns_in_time_is_not(watchdog, told):
    plugins = Plugins({}, watchdog)
    plugins.add(Dreamer(0.04), "dreamer", "x 1")
    for number in range(15):  # together longer than anyone may take
        plugins.notify("item_done", ItemDone("grade", "an item", number, 15))
    assert told == []


def test_the_thread_goes_when_there_is_nothing_to_watch(watchdog):
    def mine():
        return [t for t in threading.enumerate() if t.name == "watchdog"]

    others = mine()
    with watchdog.watching("somebody", 1.0):
        (thread,) = [t for t in mine() if t not in others]
    thread.join(2)
    assert not thread.is_alive()
    with watchdog.watching("somebody", 1.0):  # and comes again
        assert [t for t in mine() if t not in others]


def test_answers_are_signs_of_life(watchdog, told):
    class Slow(FakeBackend):
        def open_sampler(self, weights, *, batch_size):
            sampler = super().open_sampler(weights, batch_size=batch_size)
            sample = sampler.sample

            def slowly(requests):
                for number, answer in enumerate(sample(requests)):
                    time.sleep(0.12 if number < 5 else 0.9)
                    yield answer

            sampler.sample = slowly
            return sampler

    held = GuardedPlugin(Slow(), "backend", "Backend 'slow' of slow 1", watchdog, None)
    answers = held.open_sampler(None, batch_size=1).sample(some_requests())
    for _ in range(5):
        next(answers)
    assert told == []
    next(answers)
    assert told and "Backend 'slow' of slow 1 in sample, for" in told[0]


def test_steps_of_a_training_are_signs_of_life(watchdog, told, tmp_path):
    class Slow(FakeBackend):
        def train_sft(self, rows, settings, request):
            for number in range(6):
                time.sleep(0.12)
                request.step(number, 6, "")
            return super().train_sft(rows, settings, request)

    steps = []
    request = TrainRequest(tmp_path, None, 8, 0, lambda *step: steps.append(step))
    held = GuardedPlugin(Slow(), "backend", "Slow", watchdog, None)
    held.train_sft(some_rows(), SftTable(), request)
    assert told == [] and len(steps) == 10


def test_a_fault_in_a_step_of_ours_is_not_lost(watchdog, tmp_path):
    def step(done, total, word):
        raise KeyboardInterrupt

    held = GuardedPlugin(FakeBackend(), "backend", "Fake", watchdog, None)
    with pytest.raises(KeyboardInterrupt):
        request = TrainRequest(tmp_path, None, 8, 0, step)
        held.train_sft(some_rows(), SftTable(), request)
    with pytest.raises(PluginFault):  # and one of theirs is theirs
        held.train_sft(None, SftTable(), request)


PROGRAM = """
import sys, time
from pathlib import Path
from swebench_trainer import hookimpl
from swebench_trainer.plugins.manager import watchdog
from swebench_trainer.testing import Trainer

watchdog.Watchdog.__init__.__kwdefaults__["hook_patience"] = 0.2

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


def test_ctrl_c_stops_a_run_that_waits_for_a_plugin_and_it_goes_on_later(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path)]
    process = subprocess.Popen(
        [*command, "hang"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "hanging\n"
    log = tmp_path / "runs/test/logs/attempt_1/swebench-train.log"
    deadline = time.monotonic() + 30
    while "Still waiting" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode != 0 and "KeyboardInterrupt" in err
    assert "Still waiting for Plugin 'hangs' (swebench-trainer-hangs 1.0)" in out
    rows = tmp_path / "runs/test/stages/generate/candidates.jsonl"
    kept = rows.read_text().splitlines()
    assert len(kept) == 3
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"generate +resumes", done.stdout)
    assert rows.read_text().splitlines()[:3] == kept
