"""Requests to the engine and the handling of its output, without vLLM and a GPU."""

import dataclasses
import json
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import swebench_trainer_vllm
from swebench_trainer_vllm import VllmTable
from swebench_trainer_vllm.backend import engine_arguments
from swebench_trainer_vllm.sampler import VllmSampler

from swebench_trainer import builtin
from swebench_trainer.contracts import SampleRequest
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.hf import Codec, locate
from swebench_trainer.plugins.manager import Plugins

END = 9


class Engine:
    """Stands in for `vllm.LLM`: answers with the ids of the prompt in reverse order."""

    def __init__(self):
        config = SimpleNamespace(max_model_len=12)
        self.llm_engine = SimpleNamespace(model_config=config)
        self.calls = []

    def generate(self, prompts, settings, *, lora_request, use_tqdm):
        self.calls.append((prompts, settings, lora_request))
        for prompt, given in zip(prompts, settings, strict=True):
            ids = [*reversed(prompt["prompt_token_ids"]), END][: given.max_tokens]
            finish = "stop" if ids[-1] == END else "length"
            answer = SimpleNamespace(token_ids=ids, finish_reason=finish)
            yield SimpleNamespace(outputs=[answer])


def sampler(engine, **options):
    codec = Codec(
        encode=lambda text: [int(c) for c in text],
        decode=lambda ids: "".join(map(str, ids)),
        stop=frozenset({END}),
        pad=0,
    )
    return VllmSampler(engine, SimpleNamespace, codec, **options)


def request(prompt, sample=0, **changes):
    default = SampleRequest(f"i-{prompt}", sample, prompt, 8, 0.8, 0.9, seed=5 + sample)
    return dataclasses.replace(default, **changes)


def test_answers_are_matched_to_their_requests():
    requests = [request(p, s) for s in range(2) for p in ("123", "45")]
    engine = Engine()
    found = {
        (s.instance_id, s.sample): s
        for s in sampler(engine, lora="adapter").sample(requests)
    }
    assert {key: s.text for key, s in found.items()} == {
        ("i-123", 0): "321",
        ("i-123", 1): "321",
        ("i-45", 0): "54",
        ("i-45", 1): "54",
    }
    assert {
        (s.finish, s.completion_tokens - s.prompt_tokens) for s in found.values()
    } == {("stop", 1)}
    ((prompts, settings, lora),) = engine.calls
    assert [p["prompt_token_ids"] for p in prompts] == [
        [1, 2, 3],
        [1, 2, 3],
        [4, 5],
        [4, 5],
    ]
    assert [s.seed for s in settings] == [5, 6, 5, 6] and lora == "adapter"
    assert settings[0].stop_token_ids == [END] and settings[0].top_p == 0.9


def test_greedy_sampling_ignores_top_p_and_answers_fit_the_window():
    engine = Engine()
    requests = [
        request("1" * 10, temperature=0.0),
        request("1" * 12),
        request("1234567"),
    ]
    found = {s.instance_id: s for s in sampler(engine).sample(requests)}
    assert found["i-" + "1" * 12].finish == "too long"
    assert found["i-" + "1" * 10].text == "11"
    assert found["i-" + "1" * 10].finish == "length"
    ((_, settings, _),) = engine.calls
    assert [(s.max_tokens, s.top_p) for s in settings] == [(2, 1.0), (5, 0.9)]


def test_adapters_and_whole_models_get_different_engine_arguments(tmp_path):
    table = VllmTable(name="org/model", revision="abc", engine={"max_model_len": 64})

    def arguments(weights):
        return engine_arguments(table, locate(table, weights))

    base = arguments(None)
    assert base["model"] == "org/model" and base["revision"] == "abc"
    assert base["quantization"] == "bitsandbytes" and base["enable_prefix_caching"]
    assert base["max_model_len"] == 64 and "enable_lora" not in base
    whole = arguments(tmp_path)
    assert whole["model"] == str(tmp_path) and whole["revision"] is None
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 48}))
    adapted = arguments(tmp_path)
    assert adapted["model"] == "org/model" and adapted["max_lora_rank"] == 48


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_check_without_vllm_explains_what_to_install():
    plugins = Plugins({"builtin": builtin})
    plugins.add(swebench_trainer_vllm, "vllm", "swebench-trainer-vllm 0.1")
    backend = plugins.registry.create(VllmTable(name="builtin:tiny"))
    with pytest.raises(PrerequisiteError, match="needs the package vllm") as caught:
        backend.check()
    assert "base_url" in caught.value.hint
