"""The shipped recipe, with so few tasks that nothing can be learned but the way."""

import pytest

pytestmark = pytest.mark.slow

FEW = ("data.count=48", "data.graded=4", "data.heldout=6", "generate.samples=2")


def test_every_stage_up_to_the_verdicts(shell):
    shell.run("new", "from-scratch")
    settings = [part for setting in FEW for part in ("--set", setting)]
    shell.run("from-scratch.toml", *settings, "--until", "grade")
    instances = shell.rows("prepare", "instances.jsonl", "from-scratch")
    assert sum(row["split"] == "heldout" for row in instances) == 6
    admitted = shell.rows("admit", "admission.jsonl", "from-scratch")
    assert sum(row["admitted"] for row in admitted) == 10
    audit = shell.json("sft", "audit.json", "from-scratch")
    assert audit["kept"] == 48 and audit["eos_trained"]
    losses = [row["loss"] for row in shell.rows("sft", "metrics.jsonl", "from-scratch")]
    assert losses[-1] < losses[0]
    assert len(shell.rows("grade", "verdicts.jsonl", "from-scratch")) == 8
