"""The main job itself: the shipped quickstart with its real model and sandbox."""

import os
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(new_shell):
    """Where the quickstart has been run; `.ci/run` has done so already, from the wheel."""
    with pytest.MonkeyPatch.context() as patch:
        if done := os.environ.get("SWEBENCH_TRAINER_QUICKSTART"):
            # Counter-runs depend on the user's secret.
            patch.setenv("XDG_DATA_HOME", f"{done}/data")
            yield new_shell(Path(done))
            return
        shell = new_shell()
        shell.run("new", "quickstart")
        shell.run("quickstart.toml")
        yield shell


def test_training_helps_on_the_training_split(undisturbed):
    summary = undisturbed.json("evaluate", "summary.json", "quickstart")
    train = summary["splits"]["train"]["models"]
    assert train["base"]["resolved"] == 0
    assert train["sft"]["resolved"] >= train["sft"]["total"] / 2
    assert train["dpo"]["resolved"] >= train["sft"]["resolved"]
    assert (
        train["sft"]["total"] + summary["splits"]["heldout"]["models"]["sft"]["total"]
        == 24
    )


def test_every_stage_left_its_files(undisturbed):
    stages = undisturbed.stage("x", "quickstart").parent
    assert sorted(p.name for p in stages.iterdir()) == sorted(
        [
            "prepare",
            "admit",
            "sft",
            "generate",
            "grade",
            "pairs",
            "dpo",
            "evaluate",
            "publish",
        ]
    )
    audit = undisturbed.json("sft", "audit.json", "quickstart")
    assert audit["eos_trained"] and audit["dropped"] == []
    assert (stages / "publish/release/model.safetensors").stat().st_size > 1e6
    assert "| train | sft | " in (stages / "publish/release/README.md").read_text()


def test_killed_in_training_and_in_grading_it_ends_the_same(undisturbed, new_shell):
    killed = new_shell()
    killed.run("new", "quickstart")
    for file, rows in (("sft/metrics.jsonl", 60), ("grade/verdicts.jsonl", 5)):
        process = killed.start("quickstart.toml")
        path = killed.stage("x", "quickstart").parent / file
        deadline = time.monotonic() + 280
        while not (path.exists() and path.read_bytes().count(b"\n") >= rows):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    killed.run("quickstart.toml")
    expected, found = undisturbed.results("quickstart"), killed.results("quickstart")
    assert expected.keys() == found.keys()
    for results in (expected, found):  # it has digests of files with absolute paths
        del results["prepare/stage.json"]
    different = [name for name in expected if expected[name] != found[name]]
    assert different == []
