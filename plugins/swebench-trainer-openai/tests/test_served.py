"""The backend against a real model on a real server: `transformers serve`."""

from pathlib import Path

import pytest
from swebench_trainer_openai import OpenAITable
from swebench_trainer_openai.service import OpenAIService

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.hf import HfTable, locate
from swebench_trainer.remote import RemoteBackend
from swebench_trainer.testing import served_model

pytestmark = pytest.mark.slow
for package in ("fastapi", "uvicorn"):
    pytest.importorskip(package, reason="transformers[serving] is not installed")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a server, and the name of its model."""
    folder = Path(locate(HfTable(name="builtin:tiny")).model)
    log = tmp_path_factory.mktemp("served") / "serve.log"
    with served_model(folder, log) as url:
        yield url, str(folder)


@pytest.fixture
def backend(served, tmp_path):
    url, name = served
    table = OpenAITable(name=name, base_url=f"{url}/v1", api_key_env="", concurrency=4)
    made = RemoteBackend(table, OpenAIService)
    made.keep_responses(tmp_path)
    return made


def test_a_served_model_answers_every_request(backend):
    backend.check()
    asked = [
        SampleRequest(f"i-{n}", s, f"Say {n}.", 8, float(s > 0), 0.9, seed=n + s)
        for n in range(3)
        for s in range(3)
    ]
    sampler = backend.open_sampler(None, batch_size=1)
    try:
        found = {(s.instance_id, s.sample): s for s in sampler.sample(asked)}
    finally:
        sampler.close()
    assert len(found) == 9
    for sample in found.values():
        assert sample.text and 0 < sample.completion_tokens <= 8
        assert sample.prompt_tokens > 3 and sample.finish in ("stop", "length")
    used = sum(s.prompt_tokens + s.completion_tokens for s in found.values())
    assert backend.figures() == {"tokens": used}
    again = backend.open_sampler(None, batch_size=1)
    assert {(s.instance_id, s.sample): s for s in again.sample(asked)} == found
    again.close()
