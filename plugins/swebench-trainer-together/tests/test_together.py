"""Differences from the `openai` backend: address, variable, name of the limit."""

import pytest
import swebench_trainer_together
from swebench_trainer_together import TogetherTable

from swebench_trainer import builtin
from swebench_trainer.contracts import SampleRequest
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.remote.testing import LocalService, Response


@pytest.fixture
def make():
    plugins = Plugins({"builtin": builtin})
    plugins.add(swebench_trainer_together, "together", "swebench-trainer-together 0.1")
    return lambda **keys: plugins.registry.create(TogetherTable(**keys))


def complete(_, call):
    assert call.headers["authorization"] == "Bearer tg-0123456789"
    choices = [
        {"index": n, "finish_reason": "stop", "message": {"content": f"answer {n}"}}
        for n in range(call.body.get("n", 1))
    ]
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    return Response({"choices": choices, "usage": usage})


def test_requests_use_togethers_fields(make, tmp_path, monkeypatch):
    monkeypatch.setenv("TOGETHER_API_KEY", "tg-0123456789")
    asked = [SampleRequest("i", s, "Say.", 7, 0.5, 0.9, s) for s in range(3)]
    with LocalService(complete) as service:
        backend = make(name="org/model", base_url=f"{service.url}/v1", n=True)
        backend.keep_responses(tmp_path)
        sampler = backend.open_sampler(None, batch_size=1)
        found = {s.sample: s.text for s in sampler.sample(asked)}
        sampler.close()
        (call,) = service.calls
    assert found == {0: "answer 0", 1: "answer 1", 2: "answer 2"}
    assert call.body["max_tokens"] == 7 and "max_completion_tokens" not in call.body
    assert call.body["model"] == backend.name == "org/model"


def test_the_key_is_read_from_its_own_variable(make, monkeypatch):
    monkeypatch.delenv("TOGETHER_API_KEY", raising=False)
    with pytest.raises(PrerequisiteError, match="TOGETHER_API_KEY is not set"):
        make(name="org/model").check()
