"""The model card has results with intervals, and no details of the machine."""

import dataclasses

from swebench_trainer.reporting.card import model_card
from swebench_trainer.reporting.metrics import Rate
from swebench_trainer.reporting.run_report import comparison
from swebench_trainer.reporting.summaries import (
    EvaluationSummary,
    GradeSummary,
    ModelResult,
    RunResults,
    SplitResult,
    SuspiciousPass,
)
from swebench_trainer.types import LeakageReport

RESULT = ModelResult(
    **vars(Rate(resolved=1, total=8, rate=0.125, ci95=(0.02, 0.47))),
    statuses={"oom": 2, "timeout": 3},
    explained_timeouts=3,
    suspicious=(SuspiciousPass("a__b-1", 0, ("multi_marker", "touches_tests")),),
)
SUMMARY = EvaluationSummary(
    splits={"heldout": SplitResult({"base": RESULT})}, prompt="oracle", context="oracle"
)
CANDIDATES = GradeSummary(
    candidates=9,
    statuses={"resolved": 9},
    suspicious=tuple(SuspiciousPass(f"a__b-{n}", 3, ("flaky",)) for n in range(7)),
    retested=7,
    flaky=7,
    flaky_ci95=(0.6, 1.0),
)


SETTINGS = {
    "model": {"name": "org/model-7b"},
    "data": {"path": "/home/someone/secret/rows.jsonl"},
}


def card(settings=SETTINGS, summary=SUMMARY, candidates=CANDIDATES, leakage=None):
    results = RunResults(summary, candidates, LeakageReport.parse(leakage))
    return model_card("run", "dpo", settings=settings, results=results, is_adapter=True)


def test_the_card_has_results_and_their_caveats():
    text = card()
    assert "| heldout | base | 1 of 8 | 12.5% | 2.0% to 47.0% |" in text
    assert "Prompt style: `oracle`. Context: oracle (" in text
    assert "not leaderboard-valid." in text
    other = card(summary=dataclasses.replace(SUMMARY, prompt="mine", context="bm25"))
    assert "Prompt style: `mine`. Context: bm25." in other
    assert "leaderboard" not in other
    hidden = card(summary=dataclasses.replace(SUMMARY, prompt="mine"))
    assert "not leaderboard-valid" in hidden
    assert "heldout, base: 2 could not be graded and count as not resolved." in text
    assert (
        "heldout, base: 1 suspicious pass (multi_marker: 1, touches_tests: 1): "
        "a__b-1 #0 (multi_marker, touches_tests)."
    ) in text
    named = ", ".join(f"a__b-{n} #3 (flaky)" for n in range(5))
    line = f"Training candidates: 7 suspicious passes (flaky: 7): {named}, …."
    assert line in text
    assert "Training candidates" not in card(candidates=None)
    assert text.startswith("---\nbase_model: org/model-7b\nlibrary_name: peft\n")


LEAKAGE = {
    "policy": "allow",
    "train": 400,
    "heldout": 100,
    "findings": 3,
    "reasons": {"the same gold patch": 3},
    "leaking": 2,
    "dropped": 0,
    "examples": [],
    "public_tests": {"train": {"SWE-bench": 400}, "heldout": {"SWE-bench": 100}},
}


def test_the_card_warns_of_allowed_leakage_and_of_public_tests():
    text = card(leakage=LEAKAGE)
    assert "400 training instances and 100 held-out ones.\n" in text
    assert "**LEAKAGE, allowed by the recipe: 2 training instances overlap" in text
    assert "(the same gold patch: 3)" in text
    assert (
        "**CONTAMINATION: trained on 400 instances of the public test split of" in text
    )
    assert "the 100 held-out instances of this run.**" in text


def test_leakage_files_of_older_runs_are_read():
    older = {**LEAKAGE, "public test": LEAKAGE["public_tests"]}
    del older["public_tests"]
    assert card(leakage=older) == card(leakage=LEAKAGE)


def test_the_report_has_the_same_warnings():
    leaking = RunResults(leakage=LeakageReport.parse(LEAKAGE))
    caption = comparison(SUMMARY, leaking).caption.plain
    assert "LEAKAGE, allowed by the recipe" in caption and "CONTAMINATION" in caption
    assert "LEAKAGE" not in comparison(SUMMARY, RunResults()).caption.plain


def test_dropped_instances_are_mentioned_without_a_warning():
    text = card(leakage={**LEAKAGE, "policy": "drop", "dropped": 2})
    assert "**Dropped 2 training instances that shared an issue" in text
    assert "LEAKAGE" not in text


def test_a_clean_split_states_what_was_checked():
    clean = {**LEAKAGE, "findings": 0, "reasons": {}, "leaking": 0}
    clean["public_tests"] = {"train": {}, "heldout": {"SWE-bench": 100}}
    text = card(leakage=clean)
    assert "No issue, gold patch, or file that" in text
    assert "LEAKAGE" not in text and "CONTAMINATION" not in text
    assert "## Data" not in card()


def test_results_on_the_training_split_are_marked():
    assert "was trained on" not in card()
    splits = {"train": SUMMARY.splits["heldout"]}
    summary = dataclasses.replace(SUMMARY, splits=splits)
    assert "trained on the `train` split" in card(summary=summary)


def test_the_card_has_no_path_of_this_machine():
    text = card(settings={"model": {"name": "/home/someone/model"}, "data": None})
    assert "/home/someone" not in text + card()
    assert "base_model" not in text
    assert "rows.jsonl" in card()


def test_the_card_has_no_address_and_no_secret_of_this_machine():
    hosts = ["ssh://me@build7", "tcp://10.0.0.5:2376", "unix:///run/x.sock"]
    page = "https://me:token@example.org/evaluation.git"
    text = card(settings={"grade": {"hosts": hosts}, "data": {"evaluation": page}})
    for secret in ("build7", "10.0.0.5", "/run/", "token"):
        assert secret not in text
    assert "ssh://..." in text and "https://example.org/evaluation.git" in text


def test_the_card_of_a_model_without_evaluation_has_no_results():
    assert "This model was not evaluated." in card(summary=None)
