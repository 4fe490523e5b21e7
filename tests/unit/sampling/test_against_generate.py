"""Greedy answers are those of transformers' `generate`, one prompt at a time."""

from __future__ import annotations

import pytest

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.sampling import shared_prompts
from swebench_trainer.sampling.plain_cache import PlainCache
from swebench_trainer.sampling.shared_prompts import (
    FAMILIES,
    SharedPrompts,
    why_not,
)
from swebench_trainer.sampling.transformers import TransformersSampler
from swebench_trainer.training.models.loading import load_model
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.silence import silence_libraries

PAD, STOP, VOCABULARY, TOKENS = 0, 1, 40, 24
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 256,
}
PROMPTS = ((5, 6, 7), (9,) * 30, (3, 4) * 13, (30, 31, 32, 33))
OTHERS = {
    "a window": ("mistral", {"sliding_window": 12}),
    "another family": ("gemma", {"head_dim": 8}),
    "absolute positions": ("gpt2", {}),
}


@pytest.fixture(autouse=True)
def _room_for_few_tokens(monkeypatch):
    monkeypatch.setattr(shared_prompts, "CHUNK", 5)
    monkeypatch.setattr(shared_prompts, "TOKENS", 64)


def small_model(family: str, **options):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    if family in ("mistral", "starcoder2"):
        options.setdefault("sliding_window", None)
    config = AutoConfig.for_model(
        family, **SIZE | {"pad_token_id": PAD, "eos_token_id": STOP} | options
    )
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def generated(model, prompt) -> list[int]:
    import torch

    output = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=STOP,
        pad_token_id=PAD,
    )
    return [int(token) for token in output[0, len(prompt) :]]


def sampled(model, batch_size: int) -> list[list[int]]:
    """Answers to each prompt; sampled ones end at different times."""
    sampler = TransformersSampler(
        model,
        encode=lambda text: list(PROMPTS[int(text)]),
        decode=lambda ids: " ".join(map(str, ids)),
        stop=frozenset([STOP]),
        pad=PAD,
        batch_size=batch_size,
    )
    requests = [
        SampleRequest(
            str(prompt), sample, str(prompt), TOKENS, 1.5 * (sample % 2), 1.0, sample
        )
        for prompt in range(len(PROMPTS))
        for sample in range(4)
    ]
    greedy: dict[int, set[str]] = {}
    for answer in sampler.sample(requests):
        if answer.sample % 2 == 0:
            end = f" {STOP}" if answer.finish == "stop" else ""
            greedy.setdefault(int(answer.instance_id), set()).add(answer.text + end)
    assert all(len(texts) == 1 for texts in greedy.values())
    return [[int(t) for t in greedy[p].pop().split()] for p in range(len(PROMPTS))]


@pytest.mark.parametrize("batch_size", [3, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prompt_decoding_matches_generate(family, batch_size):
    model = small_model(family)
    assert why_not(model.config) is None
    expected = [generated(model, prompt) for prompt in PROMPTS]
    assert sampled(model, batch_size) == expected


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("kind", OTHERS)
def test_standard_decoding_matches_generate(kind, batch_size):
    family, options = OTHERS[kind]
    model = small_model(family, **options)
    assert why_not(model.config)
    expected = [generated(model, prompt) for prompt in PROMPTS]
    assert sampled(model, batch_size) == expected


def with_adapter(model):
    """The model with an adapter that changes its answers."""
    import torch
    from peft import LoraConfig, get_peft_model

    with silence_libraries():
        config = LoraConfig(r=4, target_modules="all-linear")
        adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    return adapted.requires_grad_(False).eval()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_decoding_with_an_adapter_matches_generate(attention):
    plain = small_model("qwen2", attn_implementation=attention)
    before = [generated(plain, prompt) for prompt in PROMPTS]
    model = with_adapter(plain)
    expected = [generated(model, prompt) for prompt in PROMPTS]
    assert sampled(model, 16) == expected != before
    assert plain.config._attn_implementation == attention


def test_decoding_with_an_adapter_on_a_4_bit_base_matches_generate(tmp_path):
    small_model("qwen2", hidden_size=64, intermediate_size=64).save_pretrained(tmp_path)
    with silence_libraries():
        base = load_model(HfTable(name=str(tmp_path), quantization="nf4"))
    assert base.is_loaded_in_4bit
    model = with_adapter(base)
    expected = [generated(model, prompt) for prompt in PROMPTS]
    assert sampled(model, 16) == expected


def test_both_decoders_give_the_logits_of_the_full_sequence():
    import torch

    model = small_model("llama")
    prompts = [list(prompt) for prompt in PROMPTS[:3]]
    answers = [[8, 9, 10], [11, 12, 13], [14, 15, 16], [17, 18, 19], [2, 2, 2]]
    owners = [0, 0, 1, 2, 2]
    for decoder in (SharedPrompts(model, PAD), PlainCache(model, PAD)):
        with torch.inference_mode():
            decoder.read(prompts, [2, 1, 2])
            for step in range(2):
                decoder.write([answer[step] for answer in answers])
            decoder.keep([1, 3, 4])
            found = decoder.write([answers[row][2] for row in (1, 3, 4)])
        for row, logits in zip((1, 3, 4), found, strict=True):
            whole = torch.tensor([[*prompts[owners[row]], *answers[row]]])
            torch.testing.assert_close(
                logits, model(whole).logits[0, -1], atol=1e-4, rtol=1e-4
            )
