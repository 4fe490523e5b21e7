"""Secrets are removed in every spelling in which a service may repeat them."""

from __future__ import annotations

import html
import json
import urllib.parse

import pytest
from hypothesis import assume, given, settings, strategies as st

from swebench_trainer.remote.api_key import HIDDEN, redact, redact_response
from swebench_trainer.secrets import without_secrets

KEYS = (
    'sk-"ab\\cd/ef',
    "k\\\\double\"q's",
    "sk-ä%&x<1>2",
    "plainkey12345",
    '"\\"\\"\\"\\"',
)


def spellings(key: str) -> list[str]:
    once = json.dumps(key)[1:-1]
    twice = json.dumps(once)[1:-1]
    return [
        *(key, once, twice, json.dumps(twice)[1:-1], repr(key)[1:-1]),
        json.dumps(key, ensure_ascii=False)[1:-1].replace("/", "\\/"),
        urllib.parse.quote(key, safe=""),
        html.escape(key),
        "".join(f"&#{ord(c)};" if not c.isalnum() else c for c in key),
        "".join(f"\\u{ord(c):04x}" if not c.isalnum() else c for c in key),
    ]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_hidden_in_each_spelling(monkeypatch, key) -> None:
    monkeypatch.setenv("SOME_API_KEY", key)
    for spelling in spellings(key):
        text = f"the key {spelling} is wrong"
        assert redact(key, text) == f"the key {HIDDEN} is wrong"
        assert without_secrets(text) == "the key $SOME_API_KEY is wrong"
        response = {"error": {"message": [text, 1, None]}, f"x{spelling}": True}
        assert redact_response(key, response) == {
            "error": {"message": [f"the key {HIDDEN} is wrong", 1, None]},
            f"x{HIDDEN}": True,
        }


@given(
    key=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=8, max_size=20),
    number=st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_no_ascii_key_survives_nested_json(key, number) -> None:
    assume(key.strip() == key and key not in HIDDEN)
    text = key
    for _ in range(number):
        text = json.dumps(text)[1:-1]
    assert text not in json.dumps(redact_response(key, {"a": f"<{text}>"}))


def test_a_response_without_the_key_stays_as_it_is() -> None:
    response = {"a": [{"b": "c"}, 1.5, True, None]}
    assert redact_response('sk-"12345678', response) == response
    assert redact_response("short", {"a": "short"}) == {"a": "short"}
