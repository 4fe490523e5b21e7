"""The card: figures with intervals, and nothing of this machine."""

from swebench_trainer.reporting.card import model_card

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
                    "explained timeouts": 3,
                    "flagged": 1,
                    "flags": {"multi_marker": 1, "touches_tests": 1},
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
        "candidates": {"flagged": 2, "flags": {"flaky": 2}},
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
        "heldout, base: 1 passes are not believed (multi_marker 1, touches_tests 1)."
    ) in text
    assert "candidates: 2 passes are not believed (flaky 2)." in text
    assert "candidates" not in card(candidates=None)
    assert text.startswith("---\nbase_model: org/model-7b\nlibrary_name: peft\n")


def test_no_path_of_this_machine():
    text = card(settings={"model": {"name": "/home/someone/model"}, "data": None})
    assert "/home/someone" not in text + card()
    assert "base_model" not in text
    assert "rows.jsonl" in card()


def test_without_an_evaluation_it_claims_nothing():
    assert "This run had no evaluation." in card(summary=None)
