"""The real SDK against a local server with the Messages API, including faults."""

import asyncio
import contextlib
import json
import threading
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest
from swebench_trainer_anthropic import BATCH, AnthropicTable
from swebench_trainer_anthropic.batches import Batches
from swebench_trainer_anthropic.service import AnthropicService

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.errors import PrerequisiteError, StageError
from swebench_trainer.remote import Fault, RemoteBackend
from swebench_trainer.remote.testing import LocalService, Response, drawn

KEY = "sk-ant-local-0123456789"


def message(body, **changes):
    (turn,) = body["messages"]
    (block,) = turn["content"]
    return {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": f"answer to {block['text']}"},
        ],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_creation_input_tokens": 100 if "cache_control" in block else 0,
            "cache_read_input_tokens": 0,
        },
        **changes,
    }


def failure(kind, said, status, **headers):
    body = {"type": "error", "error": {"type": kind, "message": said}}
    return Response(body, status, {k.replace("_", "-"): v for k, v in headers.items()})


def served(trouble=lambda n, call: None, **options):
    seen = iter(range(10**9))

    def answer(_, call):
        # The header with the key depends on the SDK version.
        key = call.headers.get("authorization") or call.headers.get("x-api-key", "")
        if key.removeprefix("Bearer ") != KEY:
            said = f"invalid key: {key}"
            return failure("authentication_error", said, 401)
        if call.method == "GET":
            return Response({"type": "model", "id": call.path.rsplit("/", 1)[-1]})
        return trouble(next(seen), call) or Response(message(call.body))

    return LocalService(answer, **options)


@pytest.fixture
def backend(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)

    def backend(service, **keys):
        table = AnthropicTable(
            name="claude",
            base_url=service.url,
            api_key_env="SOME_KEY",
            **{"retries": 3, "timeout": 5, **keys},
        )
        if table.batch:
            table = table.model_copy(update={"concurrency": BATCH})
        made = RemoteBackend(
            table, AnthropicService, leads=table.cache and not table.batch
        )
        made.keep_responses(tmp_path)
        return made

    return backend


def requests(count=8, samples=3):
    return [
        SampleRequest(f"i-{n}", s, f"prompt {n}", 50, 1.5, 0.9, seed=n)
        for n in range(count)
        for s in range(samples)
    ]


FAULTS = {
    "none": lambda n, call: None,
    "overloaded": lambda n, call: (
        failure("overloaded_error", "busy", 529, retry_after="0.1") if n < 4 else None
    ),
    "429 storm": lambda n, call: (
        failure("rate_limit_error", "slow", 429, retry_after="0.1") if n < 20 else None
    ),
    "cut half-way": lambda n, call: (
        Response(message(call.body), cut=True) if n in (0, 3) else None
    ),
    "malformed JSON": lambda n, call: (
        Response('{"content": [{') if n in (0, 3) else None
    ),
    "another shape": lambda n, call: (
        Response({"content": "text"}) if n in (0, 3) else None
    ),
    "stall": lambda n, call: (
        Response(message(call.body), stall=3) if n in (0, 3) else None
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_no_candidate_is_lost(backend, name):
    asked = requests()
    with served(FAULTS[name]) as service:
        found, error = drawn(backend(service, timeout=0.5), asked)
    assert error is None
    assert {(r.instance_id, r.sample) for r in asked} == set(found)
    assert {s.text for s in found.values()} == {
        f"answer to prompt {n}" for n in range(8)
    }
    assert {(s.finish, s.prompt_tokens) for s in found.values()} == {("stop", 110)}


def test_an_invalid_key_error_names_the_variable_but_not_the_key(
    backend, monkeypatch, tmp_path
):
    wrong = "sk-ant-wrong-9876543210"
    with served() as service:
        made = backend(service)
        made.check()
        monkeypatch.setenv("SOME_KEY", wrong)
        with pytest.raises(PrerequisiteError, match="SOME_KEY") as caught:
            made.check()
        _, error = drawn(made, requests())
    assert isinstance(error, PrerequisiteError)
    assert wrong not in str(caught.value) + str(error)
    assert not list(tmp_path.iterdir())


def test_an_account_without_credit_stops_the_stage(backend):
    low = "Your credit balance is too low to access the Anthropic API."
    empty = failure("invalid_request_error", low, 400)
    with served(lambda n, call: empty if n > 5 else None) as service:
        found, error = drawn(backend(service, concurrency=1), requests())
    assert isinstance(error, StageError) and "no credit" in str(error)
    assert len(found) == 6


def test_a_refusal_becomes_a_refused_candidate(backend):
    def refuse(n, call):
        return Response(message(call.body, stop_reason="refusal", content=[]))

    with served(refuse) as service:
        found, error = drawn(backend(service), requests(2, 1))
    assert error is None and {(s.text, s.finish) for s in found.values()} == {
        ("", "refused")
    }


def test_the_first_request_writes_the_cache_and_the_others_read_it(backend):
    def cached(n, call):
        (block,) = call.body["messages"][0]["content"]
        assert block["cache_control"] == {"type": "ephemeral"}
        body = message(call.body)
        if block["text"] in known:
            body["usage"] |= {
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 100,
            }
        known.add(block["text"])
        return Response(body)

    known = set()
    price = {"input": 1e6, "output": 0, "written": 1.25e6, "cached": 0.1e6}
    with served(cached, latency=0.02) as service:
        made = backend(service, concurrency=20, price=price)
        drawn(made, requests(4, 3))
        # 4 prompts: written 4 times, read 8 times, and 12 times 10 uncached tokens.
        assert made.figures()["cost"] == f"{4 * 125 + 8 * 10 + 12 * 10:.4g}"
    with served() as service:
        drawn(backend(service, cache=False), requests(2, 1))
        drawn(backend(service), requests(3, 1))
        for call in service.calls:
            assert "cache_control" not in json.dumps(call.body)


def test_only_listed_settings_are_sent(backend):
    with served() as service:
        drawn(backend(service), requests(1, 1))
        drawn(backend(service, send=("temperature",), body={"x": 1}), requests(1, 1))
        plain, named = (call.body for call in service.calls)
    assert "temperature" not in plain and "top_p" not in plain
    assert named["temperature"] == 1.0 and named["x"] == 1 and "top_p" not in named


class Batched:
    """A Message Batches server that ends batches on demand and can fail requests."""

    def __init__(self):
        self.batches, self.ended, self.results = {}, True, lambda n, entry: None
        self.down = 0

    def __call__(self, _, call):
        if call.method == "GET" and self.down:
            self.down -= 1
            return failure("api_error", "down", 500)
        parts = call.path.split("?")[0].split("/")[3:]
        if call.method == "POST":
            assert parts == ["batches"]
            name = f"batch_{len(self.batches)}"
            self.batches[name] = call.body["requests"]
            return Response(self.state(name))
        if parts[-1] == "results":
            rows = []
            for n, entry in enumerate(self.batches[parts[1]]):
                result = self.results(n, entry) or {
                    "type": "succeeded",
                    "message": message(entry["params"]),
                }
                rows.append({"custom_id": entry["custom_id"], "result": result})
            text = "".join(json.dumps(row) + "\n" for row in reversed(rows))
            return Response(text, 200, {"content-type": "application/binary"})
        return Response(self.state(parts[1]))

    def state(self, name):
        url = f"/v1/messages/batches/{name}/results" if self.ended else None
        return {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended" if self.ended else "in_progress",
            "results_url": url,
            "created_at": "2025-01-01T00:00:00Z",
            "expires_at": "2025-01-02T00:00:00Z",
            "request_counts": {
                "processing": 0,
                "succeeded": 0,
                "errored": 0,
                "canceled": 0,
                "expired": 0,
            },
        }


def test_a_batch_answers_all_requests(backend):
    batched, asked = Batched(), requests()
    with LocalService(batched) as service:
        found, error = drawn(backend(service, batch=True, poll=0.05), asked)
    assert error is None and len(found) == len(asked)
    assert [len(b) for b in batched.batches.values()] == [len(asked)]
    assert all(found[k].text == f"answer to prompt {k[0][2:]}" for k in found)


def test_failed_requests_of_a_batch_are_sent_again(backend):
    def some_fail(n, entry):
        if len(batched.batches) > 1 or n > 5:
            return None
        kinds = ("api_error", "overloaded_error")
        errored = {"type": "error", "error": {"type": kinds[n % 2], "message": "x"}}
        return ({"type": "expired"}, {"type": "errored", "error": errored})[n % 2]

    batched, asked = Batched(), requests()
    batched.results = some_fail
    with LocalService(batched) as service:
        found, error = drawn(backend(service, batch=True, poll=0.05), asked)
    assert error is None and len(found) == len(asked)
    assert [len(b) for b in batched.batches.values()] == [len(asked), 6]


def test_an_outage_does_not_resend_a_batch(backend):
    batched, asked = Batched(), requests(2, 2)
    batched.down = 3
    with LocalService(batched) as service:
        made = backend(service, batch=True, poll=0.05, retries=1)
        found, error = drawn(made, asked)
    assert error is None and len(found) == len(asked)
    assert len(batched.batches) == 1, "the batch was sent twice"


def test_a_stopped_run_resumes_waiting_for_its_batch(backend, tmp_path):
    batched, asked = Batched(), requests()
    batched.ended = False
    with LocalService(batched) as service:
        made = backend(service, batch=True, poll=0.05)
        sampler = made.open_sampler(None, batch_size=1)

        def wait():
            with contextlib.suppress(CancelledError):
                list(sampler.sample(asked))

        waits = threading.Thread(target=wait)
        waits.start()
        while not (tmp_path / "batches.jsonl").exists():
            waits.join(0.05)
        sampler.close()
        waits.join()
        batched.ended = True
        found, error = drawn(made, asked)
        assert error is None and len(found) == len(asked)
        assert len(batched.batches) == 1, "the batch was sent twice"
        again, _ = drawn(made, asked)
    assert again == found


@pytest.mark.parametrize("broken", ["create", "retrieve"])
def test_no_request_waits_forever_after_a_bug(broken):
    def throw(*_):
        raise RuntimeError("a bug")

    class Api:
        async def create(self, requests):
            return throw() if broken == "create" else SimpleNamespace(id="batch")

        retrieve = throw

    async def ask():
        batches = Batches(Api(), 0.01, throw)
        try:
            await asyncio.wait_for(batches.ask("name", {}), 30)
        finally:
            await batches.close()

    with pytest.raises(Fault):
        asyncio.run(ask())


def test_a_batch_whose_id_cannot_be_stored_stops_the_stage(tmp_path, backend):
    (tmp_path / "file").touch()
    with LocalService(Batched()) as service:
        made = backend(service, batch=True, poll=0.05)
        made.keep_responses(tmp_path / "file")
        with pytest.raises(OSError, match="file"):
            drawn(made, requests(1, 1))
