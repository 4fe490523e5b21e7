"""The shipped quickstart with a held-out loss and answers that stand alone."""

import pytest

pytestmark = pytest.mark.slow

SETTINGS = (
    "sft.epochs=6",
    "sft.validation=0.2",
    "generate.samples=2",
    "generate.max_new_tokens=64",
    "pairs.use=unpaired",
    "dpo.loss=kto",
    "dpo.validation=0.2",
)


def test_kto_and_held_out_losses_through_the_stages(shell):
    shell.run("new", "quickstart")
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    out = shell.run("quickstart.toml", *settings, "--until", "dpo")
    sides = {
        row["instance_id"]: row["split"]
        for row in shell.rows("prepare", "instances.jsonl", "quickstart")
    }
    held = {}
    for stage in ("sft", "dpo"):
        told = shell.json(stage, "audit.json", "quickstart")["validation"]
        held[stage] = set(told["instances"])
        assert f"{told['kept_loss']:.4f} at step {told['kept_step']}" in out
        rows = shell.rows(stage, "metrics.jsonl", "quickstart")
        losses = {row["step"]: row["eval_loss"] for row in rows if "eval_loss" in row}
        assert told["kept_loss"] == min(losses.values()) == losses[told["kept_step"]]
    assert held["sft"]
    assert {sides[name] for name in held["sft"]} == {"train"}
    assert held["dpo"] <= held["sft"]  # one of them may have no candidate
    pairs = shell.rows("pairs", "pairs.jsonl", "quickstart")
    assert pairs
    assert all((p["chosen"] is None) != (p["rejected"] is None) for p in pairs)
    assert shell.json("dpo", "audit.json", "quickstart")["cut"] == 0
