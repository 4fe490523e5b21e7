"""The card: figures with intervals, and nothing of this machine."""

from swebench_trainer.reporting.card import model_card
from swebench_trainer.reporting.tables import comparison

SUMMARY = {
    "prompt": "oracle",
    "splits": {
        "heldout": {
            "models": {
                "base": {
                    "resolved": 1,
                    "total": 8,
                    "rate": 0.125,
                    "ci95": [0.02, 0.47],
                    "statuses": {"oom": 2, "timeout": 3},
                    "explained_timeouts": 3,
                    "flagged": 1,
                    "flags": {"multi_marker": 1, "touches_tests": 1},
                    "not_believed": ["a__b-1 #0 (multi_marker, touches_tests)"],
                }
            }
        }
    },
}


def card(**changes):
    arguments = {
        "settings": {
            "model": {"name": "org/model-7b"},
            "data": {"path": "/home/someone/secret/rows.jsonl"},
        },
        "summary": SUMMARY,
        "candidates": {
            "flagged": 7,
            "flags": {"flaky": 7},
            "not_believed": [f"a__b-{n} #3 (flaky)" for n in range(7)],
        },
        "is_adapter": True,
    } | changes
    return model_card("run", "dpo", **arguments)


def test_the_figures_and_their_caveat():
    text = card()
    assert "| heldout | base | 1 of 8 | 12.5% | 2.0% to 47.0% |" in text
    assert (
        "prompt style `oracle`, context: oracle, the files that gold touches; "
        "not leaderboard-valid."
    ) in text
    other = card(summary={**SUMMARY, "prompt": "mine", "context": "bm25"})
    assert "prompt style `mine`, context: bm25." in other
    assert "leaderboard" not in other
    hidden = card(summary={**SUMMARY, "prompt": "mine", "context": "oracle"})
    assert "not leaderboard-valid" in hidden
    assert "heldout, base: 2 not graded, counted as not resolved." in text
    assert (
        "heldout, base: 1 passes are not believed (multi_marker 1, touches_tests 1): "
        "a__b-1 #0 (multi_marker, touches_tests)."
    ) in text
    named = ", ".join(f"a__b-{n} #3 (flaky)" for n in range(5))
    line = f"candidates: 7 passes are not believed (flaky 7): {named}, …."
    assert line in text
    assert "candidates" not in card(candidates=None)
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


def test_leakage_that_was_allowed_and_public_tests_are_named_as_such():
    text = card(leakage=LEAKAGE)
    assert "400 training instances, 100 held out.\n" in text
    assert "**LEAKAGE, allowed by the recipe: 2 training instances share" in text
    assert "(3 x the same gold patch)" in text
    assert (
        "**CONTAMINATION: trained on 400 instances of the public test split of" in text
    )
    assert "the 100 held out here.**" in text


def test_leakage_files_of_older_runs_are_read():
    older = {**LEAKAGE, "public test": LEAKAGE["public_tests"]}
    del older["public_tests"]
    assert card(leakage=older) == card(leakage=LEAKAGE)


def test_the_report_says_so_too():
    caption = comparison(SUMMARY, None, LEAKAGE).caption.plain
    assert "LEAKAGE, allowed by the recipe" in caption and "CONTAMINATION" in caption
    assert "LEAKAGE" not in comparison(SUMMARY, None, None).caption.plain


def test_what_was_dropped_is_told_and_is_no_warning():
    text = card(leakage={**LEAKAGE, "policy": "drop", "dropped": 2})
    assert "**2 training instances that shared an issue" in text
    assert "LEAKAGE" not in text


def test_a_clean_split_says_what_was_looked_for():
    clean = {**LEAKAGE, "findings": 0, "reasons": {}, "leaking": 0}
    clean["public_tests"] = {"train": {}, "heldout": {"SWE-bench": 100}}
    text = card(leakage=clean)
    assert "They share no instance, no commit" in text
    assert "LEAKAGE" not in text and "CONTAMINATION" not in text
    assert "## Data" not in card()


def test_the_training_split_is_named_as_such():
    assert "was trained on" not in card()
    splits = {"train": SUMMARY["splits"]["heldout"]}
    assert "trained on the split `train`" in card(summary={**SUMMARY, "splits": splits})


def test_no_path_of_this_machine():
    text = card(settings={"model": {"name": "/home/someone/model"}, "data": None})
    assert "/home/someone" not in text + card()
    assert "base_model" not in text
    assert "rows.jsonl" in card()


def test_no_address_and_no_secret_of_this_machine():
    hosts = ["ssh://me@build7", "tcp://10.0.0.5:2376", "unix:///run/x.sock"]
    page = "https://me:token@example.org/evaluation.git"
    text = card(settings={"grade": {"hosts": hosts}, "data": {"evaluation": page}})
    for secret in ("build7", "10.0.0.5", "/run/", "token"):
        assert secret not in text
    assert "ssh://..." in text and "https://example.org/evaluation.git" in text


def test_without_an_evaluation_it_claims_nothing():
    assert "This run had no evaluation." in card(summary=None)


def test_summaries_of_older_runs_can_be_read():
    def with_spaces(value):
        if isinstance(value, dict):
            return {k.replace("_", " "): with_spaces(v) for k, v in value.items()}
        return value

    models = SUMMARY["splits"]["heldout"]["models"]
    base = {**with_spaces(models["base"]), "flags": models["base"]["flags"]}
    older = {**SUMMARY, "splits": {"heldout": {"models": {"base": base}}}}
    assert card(summary=older) == card()
