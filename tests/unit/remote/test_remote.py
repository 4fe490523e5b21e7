"""The shared parts of API backends, tested with a minimal service."""

import asyncio
import dataclasses
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import ValidationError

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.errors import PluginError, PrerequisiteError, StageError
from swebench_trainer.recipe.models import semantic_settings
from swebench_trainer.remote import (
    Answer,
    Ask,
    Fault,
    Price,
    RemoteBackend,
    RemoteTable,
    Reply,
    Usage,
    fault_of_status,
    seconds_of,
)
from swebench_trainer.remote.api_key import read_key, redact_response
from swebench_trainer.remote.sampler import RequestPacer
from swebench_trainer.remote.spending import worst_case
from swebench_trainer.testing import check_backend, check_sampling


def throw(error):
    raise error


class Echo:
    """Answers with the prompt and the seed, and fails on demand."""

    def __init__(self, table, key):
        self.key, self.log, self.closed = key, [], False
        self.begun = []
        self.fault = lambda ask: None
        self.usage = {"input": 7, "output": 5}

    async def ask(self, ask):
        self.log.append(("sent", ask))
        self.begun.append(time.monotonic())
        await asyncio.sleep(0.005)
        if fault := self.fault(ask):
            raise fault
        self.log.append(("answered", ask))
        return {"texts": [f"{r.prompt} {r.seed}" for r in ask.requests]}

    def read(self, response):
        answers = tuple(Answer(text, "stop") for text in response["texts"])
        return Reply(answers, self.usage and Usage(**self.usage))

    async def close(self):
        self.closed = True


@pytest.fixture
def make(tmp_path):
    def make(**keys):
        options = {k: keys.pop(k) for k in ("several", "leads") if k in keys}
        table = RemoteTable(
            **{
                "use": "echo",
                "name": "m",
                "api_key_env": "",
                "concurrency": 3,
                "base_url": "http://localhost/v1",
                **keys,
            }
        )
        service = Echo(table, "")
        backend = RemoteBackend(table, lambda *_: service, **options)
        backend.keep_responses(tmp_path)
        backend.service = service
        return backend

    return make


def requests(instances=3, samples=3):
    return [
        SampleRequest(f"i-{n}", s, f"prompt {n}", 20, 0.8, 0.95, 10 * n + s)
        for n in range(instances)
        for s in range(samples)
    ]


def drawn(backend, asked):
    sampler = backend.open_sampler(None, batch_size=1)
    try:
        return {(s.instance_id, s.sample): s.text for s in sampler.sample(asked)}
    finally:
        sampler.close()


def sent(backend):
    return [ask for what, ask in backend.service.log if what == "sent"]


def test_the_backend_passes_the_contract_suite(make, tmp_path):
    backend = make()
    check_backend(backend, tmp_path, trains=False)
    check_sampling(backend, None)
    with pytest.raises(PluginError, match="cannot open trained weights"):
        backend.open_sampler(tmp_path, batch_size=1)
    assert backend.service.closed


def test_a_response_is_stored_before_use(make, tmp_path):
    backend = make()
    sampler = backend.open_sampler(None, batch_size=1)
    for sample in sampler.sample(requests()):
        rows = map(json.loads, (tmp_path / "responses.jsonl").read_text().splitlines())
        kept = {(r["instance_id"], *r["samples"]): r for r in rows}
        row = kept[sample.instance_id, sample.sample]
        assert row["response"] == {"texts": [sample.text]}
        assert row["usage"]["output"] == 5
    sampler.close()


def test_stored_answers_are_not_requested_again(make):
    asked = requests()
    drawn(make(), asked[:4])
    backend = make()
    assert drawn(backend, asked) == {
        (r.instance_id, r.sample): f"{r.prompt} {r.seed}" for r in asked
    }
    assert len(sent(backend)) == len(asked) - 4


def test_requests_start_spread_over_time(make):
    backend = make(concurrency=50)
    drawn(backend, requests(25, 2))
    first, *_, last = backend.service.begun
    assert last - first > 0.15


def test_the_pacer_spreads_requests_and_late_ones_catch_up():
    pacer = RequestPacer(16, now=7.0)
    assert [pacer.wait(7.0) for _ in range(3)] == pytest.approx([0, 0.005, 0.01])
    # The last pause ended 33 ms late.
    assert [pacer.wait(7.043) for _ in range(6)] == [0] * 6
    assert pacer.wait(7.043) == pytest.approx(0.002)
    # Much later, many answers arrive at once.
    waits = [pacer.wait(8.0) for _ in range(20)]
    assert not any(waits[:11]) and all(waits[11:])
    assert waits[-1] == pytest.approx(19 * 0.005 - 0.05)


def test_pauses_do_not_limit_concurrency():
    pacer = RequestPacer(600, now=0.0)
    assert max(pacer.wait(0.0) for _ in range(600)) == pytest.approx(0.3, abs=0.001)


def test_a_torn_last_response_is_requested_again(make, tmp_path):
    drawn(make(), requests(1))
    path = tmp_path / "responses.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    backend = make()
    assert len(drawn(backend, requests(1))) == 3
    assert len(sent(backend)) == 1


def test_the_leading_request_of_a_prompt_is_answered_first(make):
    backend = make(leads=True)
    assert len(drawn(backend, requests())) == 9
    answered = set()
    for what, ask in backend.service.log:
        assert ask.shared
        if what == "sent" and ask.first.sample:
            assert ask.first.instance_id in answered
        elif what == "answered":
            answered.add(ask.first.instance_id)


def test_a_failed_leading_request_is_retried_before_the_others(make):
    backend = make(leads=True)
    faults = iter([Fault("busy", "later"), Fault("busy", "later")])
    backend.service.fault = lambda ask: next(faults, None)
    assert len(drawn(backend, requests(2))) == 6
    assert not [a for a in sent(backend)[:2] if a.first.sample]


def test_a_single_sample_is_not_marked_as_shared(make):
    backend = make(leads=True)
    drawn(backend, requests(3, 1))
    assert not any(ask.shared for ask in sent(backend))


def test_a_prompt_that_always_fails_does_not_stop_the_others(make):
    backend = make()
    backend.service.fault = lambda ask: (
        Fault("busy", "no luck") if ask.first.instance_id == "i-0" else None
    )
    asked, found = requests(), []
    sampler = backend.open_sampler(None, batch_size=1)
    with pytest.raises(StageError, match=r"no luck[^$]*Missing: 3 answers"):
        for sample in sampler.sample(asked):
            found.append(sample.instance_id)
    sampler.close()
    assert sorted(found) == ["i-1"] * 3 + ["i-2"] * 3


def test_tokens_are_estimated_without_reported_usage(make):
    backend = make()
    backend.service.usage = None
    drawn(backend, requests(1))
    assert backend.figures() == {"tokens": 3 * (len("prompt 0") // 3 + 1 + 3 + 1)}


def test_prices_distinguish_cached_and_written_tokens():
    usage = Usage(input=100, cached=1000, written=10, output=1)
    assert Price(input=1, output=1e6).of(usage) == pytest.approx(1 + 1110e-6)
    dear = Price(input=1, cached=2, written=3e6, output=0)
    assert dear.of(usage) == pytest.approx(30 + 2100e-6)


def test_unreadable_responses_count_against_the_budget(make):
    """Its actual cost is unknown, so the maximum is counted."""
    (asked,) = requests(1, 1)
    worst = len(asked.prompt) // 3 + 1 + asked.max_new_tokens
    backend = make(retries=9, budget={"tokens": 2 * worst + 1})
    backend.service.read = lambda response: throw(Fault("spoilt", "no answer"))
    with pytest.raises(StageError, match=f"Spent: {2 * worst} of .* Missing: 1 "):
        drawn(backend, [asked])
    assert len(sent(backend)) == 2


def test_a_response_that_crashes_a_plugin_is_stored(make, tmp_path):
    backend = make()
    backend.service.read = lambda response: throw(KeyError("x"))
    with pytest.raises(KeyError):
        drawn(backend, requests(1, 1))
    assert "prompt 0 0" in (tmp_path / "responses.jsonl").read_text()


def test_skip_failing_skips_a_prompt_that_always_fails(make):
    backend = make(skip_failing=True)
    backend.service.fault = lambda ask: (
        Fault("busy", "no luck") if ask.first.instance_id == "i-0" else None
    )
    found = drawn(backend, requests())
    assert sorted(name for name, _ in found) == ["i-1"] * 3 + ["i-2"] * 3
    assert len(sent(backend)) == 6 + 2 * 3


def test_skip_failing_does_not_skip_everything(make):
    backend = make(skip_failing=True)
    backend.service.fault = lambda ask: Fault("busy", "no luck")
    with pytest.raises(StageError, match="Missing: 9 answers"):
        drawn(backend, requests())


def test_cache_writes_may_cost_more():
    price = Price(input=1e6, written=2e6, output=0)
    ask = Ask((requests(1, 1)[0],))
    shared = dataclasses.replace(ask, shared=True)
    tokens = worst_case(ask).input
    assert price.of(worst_case(ask)) == tokens
    assert price.of(worst_case(shared)) == 2 * tokens


@pytest.mark.parametrize("key", ["\u201csk-0123456789\u201d", "sk-01234\n56789"])
def test_an_invalid_key_is_rejected_without_showing_it(monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(PrerequisiteError, match="SOME_KEY is not a valid key") as e:
        read_key("SOME_KEY")
    assert "0123" not in str(e.value)


def test_retry_after_accepts_seconds_and_dates():
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert seconds_of("3600.5") == 3600.5
    assert seconds_of(later) == pytest.approx(3600, abs=30)
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert [seconds_of(x) for x in ("", "soon", "-1", "nan", past)] == [0] * 5


def test_the_address_of_a_service_may_change_during_a_run():
    """A model on a rented machine has another address the next day."""
    table = RemoteTable(use="echo", name="m", api_key_env="", base_url="http://a/v1")
    moved = table.model_copy(update={"base_url": "http://b/v1", "api_key_env": "KEY"})
    other = table.model_copy(update={"name": "n"})
    assert semantic_settings(moved) == semantic_settings(table)
    assert semantic_settings(other) != semantic_settings(table)


def test_bugs_of_a_plugin_are_not_hidden(make):
    backend = make()
    backend.service.read = lambda response: response["nothing"]
    with pytest.raises(KeyError, match="nothing"):
        drawn(backend, requests())


@pytest.mark.parametrize(
    "keys",
    [
        {"api_key_env": "sk-a-key-by-mistake"},
        {"base_url": "http://user:secret@localhost/v1"},
        {"base_url": "http://localhost/v1?key=secret"},
        {"base_url": "localhost:8000"},
        {"budget": {"money": 3.0}},
        {"price": {"input": -1, "output": 1}},
    ],
)
def test_invalid_tables_are_rejected(make, keys):
    with pytest.raises(ValidationError):
        make(**keys)


@pytest.mark.parametrize(
    ("status", "reason", "code", "kind"),
    [
        (401, "no", "", "key"),
        (403, "no", "", "key"),
        (402, "pay", "", "credit"),
        (429, "quota", "insufficient_quota", "credit"),
        (400, "Your credit balance is too low to access", "", "credit"),
        (429, "slow", "", "busy"),
        (529, "overloaded", "", "busy"),
        (404, "nothing", "", "model"),
        (400, "what?", "model_not_found", "model"),
        (400, "prompt is too long: 300000 tokens", "", "too long"),
        (413, "large", "", "too long"),
        (400, "bad words", "", "refused"),
    ],
)
def test_statuses_map_to_fault_kinds(status, reason, code, kind):
    assert fault_of_status(status, reason, code=code).kind == kind


def test_a_key_is_redacted_anywhere_in_a_response():
    key = 'sk-"quoted"-\\-0123456789'
    response = {key: [f"Bearer {key}", {"x": key}], "n": 1}
    assert key not in str(redact_response(key, response).items())
    assert redact_response(key, {"a": 1}) == {"a": 1}
    assert redact_response("", {"a": ""}) == {"a": ""}
