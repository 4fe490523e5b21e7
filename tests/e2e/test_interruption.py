"""A run that is killed at any moment and resumed ends like an undisturbed one."""

import os
import random
import signal
import time

import pytest

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.namespace.grader import repository_view

SLOW = ("--set", "model.pause=0.01", "--set", "grade.pause=0.01")
WAVERING = ("--set", "grade.wavers=0.4", "--set", "grade.retest=0.7")


def test_a_killed_and_resumed_run_gives_the_undisturbed_result(new_shell, recipe):
    undisturbed, killed = new_shell(), new_shell()
    # `pause` is part of the fingerprint, so both runs need it.
    settings = (*SLOW, *WAVERING, "--set", "grade.confirmations=2")
    undisturbed.run(undisturbed.write(recipe), *settings)
    name = killed.write(recipe)
    kills = killed.run_killed(name, *settings, moments=random.Random(7))
    assert kills >= 2
    flags = [v["flags"] for v in undisturbed.rows("grade", "verdicts.jsonl")]
    assert ["flaky"] in flags and [] in flags
    assert killed.results() == undisturbed.results()


@pytest.mark.slow
def test_a_killed_and_resumed_run_with_real_test_runs_gives_the_undisturbed_result(
    new_shell, recipe
):
    """Cache entries of a killed attempt must not show in the results."""
    try:
        repository_view()
    except PrerequisiteError as error:
        pytest.skip(error.message)
    undisturbed, killed = new_shell(), new_shell()
    text = recipe.replace('"believer"', '"namespace"\nretest = 0.5')
    text = text.replace("counter_runs = false\n", "")
    undisturbed.run(undisturbed.write(text))
    name = killed.write(text)
    kills = killed.run_killed(name, moments=random.Random(11))
    assert kills >= 2
    assert killed.results() == undisturbed.results()
    # With a warm cache, the same run needs no test runs and gives the same results.
    undisturbed.run(name, "--name", "again")
    again, first = undisturbed.results("again"), undisturbed.results()
    assert again.keys() == first.keys()
    for stage in ("admit", "grade"):
        verdicts = f"{stage}/verdicts.jsonl"
        assert again[verdicts].replace(b"/again/", b"/small/") == first[verdicts]
        answers = {
            r["answered_by"] for r in undisturbed.rows(stage, "timings.jsonl", "again")
        }
        assert answers <= {"cache", "tree"}


def test_decided_items_are_not_graded_again(shell, recipe):
    name = shell.write(recipe)
    arguments = (name, "--set", "grade.pause=0.05")
    process = shell.start(*arguments)
    path = shell.stage("grade") / "verdicts.jsonl"
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    decided = path.read_bytes().count(b"\n")
    shell.run(*arguments)
    log = (shell.folder / "runs/small/events.jsonl").read_text().splitlines()
    import json

    events = [json.loads(line) for line in log]
    graded = [
        e["item"] for e in events if e["event"] == "ItemDone" and e["stage"] == "grade"
    ]
    assert len(graded) == len(set(graded)), "an item was graded twice"
    verdicts = shell.rows("grade", "verdicts.jsonl")
    first = [item for item in graded if not item.startswith("again/")]
    assert len(first) in (len(verdicts), len(verdicts) - 1)
    assert len(graded) - len(first) == len(shell.rows("grade", "retests.jsonl"))
    assert decided >= 2


def test_ctrl_c_prints_how_to_resume(shell, recipe):
    name = shell.write(recipe)
    process = shell.start(name, "--set", "model.pause=20")
    while not shell.stage("generate").exists():
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"To resume: swebench-train run {name} --set model.pause=20" in err
    assert "Traceback" not in err


def test_a_second_process_is_refused(shell, recipe):
    name = shell.write(recipe)
    first = shell.start(name, "--set", "model.pause=20")
    while not shell.stage("generate").exists():
        time.sleep(0.05)
    out = shell.run(name, "--set", "model.pause=20", code=1)
    assert f"is in use by process {first.pid} on " in out
    first.kill()
    first.communicate()
