"""Which verdicts become labels: admission, retests, and how reports describe them."""

import json


def wavering(recipe, **changes):
    keys = {"wavers": 0.4, "retest": 0.9, **changes}
    lines = "\n".join(f"{key} = {value}" for key, value in keys.items())
    return recipe.replace('use = "believer"', f'use = "believer"\n{lines}')


def test_passes_are_retested_and_flaky_ones_are_not_used(shell, recipe):
    name = shell.write(wavering(recipe, admission_runs=1))
    out = shell.run(name, "--until", "pairs")
    verdicts = shell.rows("grade", "verdicts.jsonl")
    retests = shell.rows("grade", "retests.jsonl")
    flaky = {(r["instance_id"], r["patch"]) for r in retests if not r["holds"]}
    held = {(r["instance_id"], r["patch"]) for r in retests if r["holds"]}
    assert flaky and held and not flaky & held
    for verdict in verdicts:
        key = (verdict["instance_id"], verdict["patch"])
        assert verdict["flags"] == (["flaky"] if key in flaky else [])
        if verdict["status"] == "resolved":
            assert key in flaky | held, "every pass is retested"
    count = f"{len(flaky)}/{len(flaky | held)} ("
    assert f"  flaky {count}" in out
    summary = shell.json("grade", "summary.json")
    assert (summary["flaky"], summary["retested"]) == (len(flaky), len(flaky | held))
    low, high = summary["flaky_ci95"]
    assert 0 < low < len(flaky) / len(flaky | held) < high < 1
    texts = {
        (c["instance_id"], c["sample"]): c["text"]
        for c in shell.rows("generate", "candidates.jsonl")
    }
    flaky_texts = {
        texts[v["instance_id"], v["sample"]] for v in verdicts if "flaky" in v["flags"]
    }
    for pair in shell.rows("pairs", "pairs.jsonl"):
        assert pair["chosen"] not in flaky_texts and pair["rejected"] not in flaky_texts
    passes = sum(v["status"] == "resolved" and bool(v["flags"]) for v in verdicts)
    assert [p["flags"] for p in summary["suspicious"]] == [["flaky"]] * passes


def test_equal_patches_share_their_retest(shell, recipe):
    shell.run(shell.write(wavering(recipe)), "--until", "grade")
    rows = shell.rows("grade", "again/1/timings.jsonl")
    retests = shell.rows("grade", "retests.jsonl")
    assert len(rows) == len({(r["instance_id"], r["patch"]) for r in retests})
    assert len(rows) < len(retests)
    off = wavering(recipe, dedupe='"off"', cache="false")
    shell.run(shell.write(off), "--until", "grade", "--name", "off")
    rows = shell.rows("grade", "again/1/timings.jsonl", "off")
    assert len(rows) == len(shell.rows("grade", "retests.jsonl", "off"))
    assert shell.rows("grade", "verdicts.jsonl")[0].keys() == (
        shell.rows("grade", "verdicts.jsonl", "off")[0].keys()
    )


def test_no_candidate_is_retested_without_need(shell, recipe):
    text = wavering(recipe, confirmations=0, retest=0)
    out = shell.run(shell.write(text), "--until", "grade")
    assert shell.rows("grade", "retests.jsonl") == []
    assert not (shell.stage("grade") / "again").exists()
    assert "flaky" not in out


def test_admission_names_flaky_gold(shell, recipe):
    text = wavering(recipe, wavers=1, admission_runs=3)
    out = shell.run(shell.write(text), "--until", "admit", code=1)
    rows = shell.rows("admit", "admission.jsonl")
    assert {r["reason"] for r in rows} == {"gold is flaky: resolved in 1 of 3 runs"}
    assert "gold is flaky: resolved in 1 of 3 runs" in out
    assert {tuple(r["gold"]) for r in rows} == {
        ("resolved", "unresolved", "unresolved")
    }
    name = shell.write(wavering(recipe, wavers=0, admission_runs=3))
    shell.run(name, "--until", "admit", "--redo", "admit")
    row = shell.rows("admit", "admission.jsonl")[0]
    assert row["admitted"] and row["gold"] == ["resolved"] * 3


def test_the_report_and_the_card_list_suspicious_passes(shell, recipe):
    shell.run(shell.write(wavering(recipe, wavers=0.6, retest=0.9)))
    summary = shell.json("grade", "summary.json")
    assert summary["suspicious"], "the draw must give a suspicious pass"
    out = " ".join(shell.run("report", "runs/small").split())
    count, first = len(summary["suspicious"]), summary["suspicious"][0]
    noun = "pass" if count == 1 else "passes"
    name = f"{first['instance_id']} #{first['sample']} (flaky)"
    line = f"Training candidates: {count} suspicious {noun} (flaky: {count}): {name}"
    assert line in out
    card = (shell.stage("publish") / "release/README.md").read_text()
    assert line in card
    json.dumps(summary)
