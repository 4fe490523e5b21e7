"""The real SDK against a local server with the faults of real services."""

import dataclasses
import json

import pytest
from swebench_trainer_openai import OpenAITable
from swebench_trainer_openai.service import OpenAIService

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.errors import PrerequisiteError, RecipeError, StageError
from swebench_trainer.remote import RemoteBackend
from swebench_trainer.remote.testing import LocalService, Response, drawn

KEY = "sk-local-0123456789"
BUSY = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}


def completion(call, **changes):
    texts = [f"answer to {call.body['messages'][0]['content']}"] * call.body.get("n", 1)
    return {
        "id": "c",
        "object": "chat.completion",
        "model": call.body["model"],
        "choices": [
            {
                "index": place,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
            for place, text in enumerate(texts)
        ],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 10 * len(texts),
            "prompt_tokens_details": {"cached_tokens": 40},
        },
        **changes,
    }


def broken(call):
    """The response of a router whose provider failed."""
    body = completion(call)
    for choice in body["choices"]:
        error = {"code": 502, "message": "provider returned an error"}
        choice.update(finish_reason="error", error=error, message={"content": ""})
    return body


def served(trouble=lambda number, call: None, **options):
    """A service that answers unless `trouble` returns a fault for the n-th completion."""
    seen = iter(range(10**9))

    def answer(_, call):
        if call.headers.get("authorization") != f"Bearer {KEY}":
            said = call.headers.get("authorization", "")
            body = {"error": {"message": f"Incorrect API key provided: {said}"}}
            return Response(body, 401)
        if call.path.endswith("/models"):
            return Response({"object": "list", "data": [{"id": "m"}]})
        return trouble(next(seen), call) or Response(completion(call))

    return LocalService(answer, **options)


@pytest.fixture
def backend(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)

    def backend(service, **keys):
        table = OpenAITable(
            name="m",
            base_url=f"{service.url}/v1",
            api_key_env="SOME_KEY",
            **{"retries": 3, "timeout": 5, **keys},
        )
        made = RemoteBackend(table, OpenAIService, several=table.n)
        made.keep_responses(tmp_path)
        return made

    return backend


def prompt(number):
    """A prompt of about as many tokens as the service reports."""
    return f"prompt {number}" + " word" * 60


def requests(count=12, samples=2):
    return [
        SampleRequest(f"i-{n}", s, prompt(n), 50, 0.8, 0.95, seed=n * 7 + s)
        for n in range(count)
        for s in range(samples)
    ]


def lost(found, asked):
    return [r for r in asked if (r.instance_id, r.sample) not in found]


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


FAULTS = {
    "429 storm": lambda n, call: (
        Response(BUSY, 429, {"retry-after": "0.2"}) if n < 40 else None
    ),
    "429 without Retry-After": lambda n, call: Response(BUSY, 429) if n < 6 else None,
    "some are 503": lambda n, call: Response("<html>", 503) if n % 6 == 0 else None,
    "cut half-way": lambda n, call: (
        Response(completion(call), cut=True) if n in (0, 3) else None
    ),
    "malformed JSON": lambda n, call: (
        Response('{"choices": [{', 200) if n in (0, 3) else None
    ),
    "JSON of another kind": lambda n, call: (
        Response({"choices": [{"x": 1}]}) if n == 1 else None
    ),
    "an error with status 200": lambda n, call: (
        Response({"error": {"message": "?"}}) if n == 1 else None
    ),
    "an error in a choice": lambda n, call: (
        Response(broken(call)) if n in (0, 3) else None
    ),
    "stall": lambda n, call: (
        Response(completion(call), stall=3) if n in (0, 3) else None
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_no_candidate_is_lost(backend, name):
    asked = requests()
    with served(FAULTS[name]) as service:
        found, error = drawn(backend(service, timeout=0.5), asked)
    assert error is None
    assert not lost(found, asked)
    assert {s.text for s in found.values()} == {
        f"answer to {prompt(n)}" for n in range(12)
    }


def test_an_endless_storm_stops_the_stage_which_can_resume(backend):
    asked = requests()
    with served(lambda n, call: Response(BUSY, 429) if n >= 9 else None) as service:
        found, error = drawn(backend(service, retries=0, concurrency=4), asked)
    assert isinstance(error, StageError) and "slow down" in str(error)
    assert f"Missing: {len(asked) - len(found)} answers" in str(error)
    assert len(found) == 9
    with served() as service:
        found, error = drawn(backend(service), asked)
        assert error is None and not lost(found, asked)
        assert len(service.calls) == len(asked) - 9, "what was kept was paid for again"


def test_a_long_retry_after_stops_the_stage(backend):
    with served(
        lambda n, call: Response(BUSY, 429, {"retry-after": "3600"})
    ) as service:
        _, error = drawn(backend(service), requests())
    assert "Retry-After is 3600 s" in str(error)


def test_an_invalid_key_error_names_the_variable_but_not_the_key(
    backend, monkeypatch, tmp_path
):
    wrong = "sk-wrong-9876543210"
    with served() as service:
        made = backend(service)
        monkeypatch.setenv("SOME_KEY", wrong)
        with pytest.raises(PrerequisiteError, match="SOME_KEY") as caught:
            made.check()
        _, error = drawn(made, requests())
    assert isinstance(error, PrerequisiteError) and "SOME_KEY" in str(error)
    for text in (str(caught.value), str(error)):
        assert wrong not in text and "[the key]" in text
    assert not files(tmp_path)


def test_a_key_echoed_by_the_service_is_not_stored(backend, tmp_path):
    with served(
        lambda n, call: Response(completion(call, echo=dict(call.headers)))
    ) as service:
        found, error = drawn(backend(service), requests())
    assert error is None and found
    (content,) = files(tmp_path).values()
    assert KEY.encode() not in content and b"[the key]" in content


def test_no_request_is_sent_without_a_key(backend, monkeypatch):
    with served() as service:
        made = backend(service)
        monkeypatch.delenv("SOME_KEY")
        with pytest.raises(PrerequisiteError, match="SOME_KEY is not set"):
            made.check()
        assert not service.calls


def test_an_unknown_model_is_a_recipe_error(backend):
    unknown = {"error": {"message": "no model m", "code": "model_not_found"}}
    with served(lambda n, call: Response(unknown, 404)) as service:
        _, error = drawn(backend(service), requests())
    assert isinstance(error, RecipeError) and "no model m" in str(error)


def refuse(which, code="content_policy_violation"):
    body = {"error": {"message": "not this", "code": code}}
    return lambda n, call: (
        Response(body, 400) if call.body["messages"][0]["content"] in which else None
    )


@pytest.mark.parametrize(
    ("code", "finish"),
    [
        ("content_policy_violation", "refused"),
        ("context_length_exceeded", "too long"),
    ],
)
def test_a_refused_prompt_becomes_a_refused_candidate(backend, code, finish):
    asked = requests()
    with served(refuse([prompt(0), prompt(1)], code)) as service:
        made = backend(service, concurrency=2)
        found, error = drawn(made, asked)
        assert error is None and not lost(found, asked)
        refused = {k[0] for k, s in found.items() if s.finish == finish and not s.text}
        assert refused == {"i-0", "i-1"}
        calls = len(service.calls)
        again, _ = drawn(made, asked)
        assert again == found and len(service.calls) == calls


def test_refusing_every_request_is_a_recipe_error(backend, tmp_path):
    everything = [prompt(n) for n in range(12)]
    with served(refuse(everything, "unsupported_parameter")) as service:
        found, error = drawn(backend(service, concurrency=1), requests())
        assert isinstance(error, RecipeError) and "refuses every request" in str(error)
        assert not found and len(service.calls) == 15
    assert not files(tmp_path)


def test_moderation_is_not_mistaken_for_an_invalid_key(backend):
    def moderate(n, call):
        if call.body["messages"][0]["content"] == prompt(3):
            body = {"error": {"message": "Your input was flagged by moderation"}}
            return Response(body, 403)
        return None

    asked = requests()
    with served(moderate) as service:
        found, error = drawn(backend(service), asked)
    assert error is None and not lost(found, asked)
    assert {k[0] for k, s in found.items() if s.finish == "refused"} == {"i-3"}


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": 5}, {"completion_tokens": None}, ["?"], None]
)
def test_answers_without_usage_are_accepted(backend, usage):
    asked = requests(2)
    with served(lambda n, call: Response(completion(call, usage=usage))) as service:
        made = backend(service)
        found, error = drawn(made, asked)
        assert error is None and not lost(found, asked)
        assert len(service.calls) == len(asked) and made.figures()["tokens"] > 100


@pytest.mark.parametrize(
    "list_", ["<html>hello</html>", [{"id": "m"}], {"data": ["m"]}]
)
def test_the_check_accepts_any_list_of_models_but_no_web_page(backend, list_):
    with LocalService(lambda _, call: Response(list_)) as service:
        if isinstance(list_, str):
            with pytest.raises(RecipeError, match=r"web page.*v1"):
                backend(service).check()
        else:
            backend(service).check()


def test_a_refusal_in_a_message_is_recognized(backend):
    def decline(n, call):
        body = completion(call)
        body["choices"][0]["message"] = {"content": None, "refusal": "I will not."}
        return Response(body)

    with served(decline) as service:
        found, error = drawn(backend(service), requests(2))
    assert error is None and {s.finish for s in found.values()} == {"refused"}


def test_a_money_budget_stops_the_stage_which_can_resume(backend):
    asked = requests()
    price = {"input": 1e4, "cached": 5e3, "output": 1e5}
    # 60 * 0.01 + 40 * 0.005 + 10 * 0.1 = 1.8 for each; 6.03 would be the worst.
    with served() as service:
        found, error = drawn(
            backend(service, price=price, budget={"money": 20}, concurrency=4), asked
        )
        assert isinstance(error, StageError) and "budget" in str(error)
        assert len(found) == 8, "7 * 1.8 + 6.03 <= 20 < 8 * 1.8 + 6.03"
        assert "14.4 of 20" in str(error) and "Missing: 16 answers" in str(error)
        richer = backend(service, price=price, budget={"money": 50}, concurrency=4)
        found, error = drawn(richer, asked)
        assert error is None and not lost(found, asked)
        assert len(service.calls) == len(asked)
        assert richer.figures() == {"tokens": 24 * 110, "cost": "43.2"}


def test_a_token_budget_stops_the_stage(backend):
    with served() as service:
        found, error = drawn(backend(service, budget={"tokens": 500}), requests())
    assert "440 of 500 tokens" in str(error) and len(found) == 4


def test_n_requests_several_answers_at_once(backend):
    asked = requests(3, 4)
    with served() as service:
        made = backend(service, n=True)
        found, error = drawn(made, asked[:5])
        assert [c.body.get("n") for c in service.calls] == [4, None]
        found, error = drawn(made, asked)
        assert error is None and not lost(found, asked)
        assert [c.body.get("n") for c in service.calls[2:]] == [3, 4]
    assert {s.completion_tokens for s in found.values()} == {10}


def test_missing_answers_are_requested_again_if_n_is_ignored(backend):
    def one(n, call):
        body = completion(call)
        return Response({**body, "choices": body["choices"][:1]})

    asked = requests(2, 3)
    with served(one) as service:
        found, error = drawn(backend(service, n=True), asked)
        assert error is None and not lost(found, asked)
        assert len(service.calls) == 6


def test_concurrency_is_reached_and_not_exceeded(backend):
    with served(latency=0.1) as service:
        found, _ = drawn(backend(service, concurrency=6), requests(10))
        assert service.most == 6
    assert len(found) == 20


def test_closing_early_keeps_received_answers(backend):
    asked = requests()
    with served(latency=0.02) as service:
        made = backend(service, concurrency=4)
        sampler = made.open_sampler(None, batch_size=1)
        answers = sampler.sample(asked)
        next(answers)
        sampler.close()
        calls = len(service.calls)
        assert calls < len(asked)
        found, error = drawn(made, asked)
        assert error is None and not lost(found, asked)
        assert len(service.calls) <= calls + len(asked) - 1


def test_requests_and_stored_responses_have_the_expected_fields(backend, tmp_path):
    request = SampleRequest("i", 0, "Größe?\n", 50, 0.8, 0.95, seed=2**31 + 5)
    text = '{"choices": [{"message": {"content": "Maß"}}], "new": {"\u00fc": 1.50}}'
    with served(lambda n, call: Response(text)) as service:
        made = backend(service, body={"reasoning_effort": "low"})
        found, error = drawn(made, [request])
        (call,) = service.calls
    assert error is None and found["i", 0].text == "Maß"
    assert (call.method, call.path) == ("POST", "/v1/chat/completions")
    assert call.headers["content-type"] == "application/json"
    assert call.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Größe?\n"}],
        "max_completion_tokens": 50,
        "temperature": 0.8,
        "top_p": 0.95,
        "seed": 5,
        "reasoning_effort": "low",
    }
    (row,) = map(json.loads, (tmp_path / "responses.jsonl").read_text().splitlines())
    assert row["response"] == json.loads(text), "fields that the SDK does not know"


def test_invalid_json_is_stored_unchanged(backend, tmp_path):
    cut = '{"choices": [{"mess\u00e4'
    with served(lambda n, call: Response(cut) if n == 0 else None) as service:
        found, error = drawn(backend(service), requests(1, 1))
    assert error is None and len(found) == 1
    first, _ = map(json.loads, (tmp_path / "responses.jsonl").read_text().splitlines())
    assert first["spoilt"] == {"unreadable": cut}


def test_changed_settings_change_the_requests(backend):
    asked = requests(2)
    with served() as service:
        drawn(backend(service), asked)
        hotter = [dataclasses.replace(r, temperature=1.0) for r in asked]
        drawn(backend(service), hotter)
        assert len(service.calls) == 8
        drawn(backend(service, body={"reasoning_effort": "low"}, omit=("seed",)), asked)
        assert len(service.calls) == 12
        sent = service.calls[-1].body
        assert sent["reasoning_effort"] == "low" and "seed" not in sent
