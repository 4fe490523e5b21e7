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
                    "not believed": ["a__b-1 #0 (multi_marker, touches_tests)"],
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
            "not believed": [f"a__b-{n} #3 (flaky)" for n in range(7)],
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
