from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.errors import StageError
from swebench_trainer.sampling.transformers import TransformersSampler, gumbel_sampler

STOP, PAD, VOCABULARY = 1, 0, 32
PROMPTS = ("a", "a longer prompt", "mid one", "the longest prompt of all")


@pytest.fixture
def model():
    """A random Qwen2: it knows nothing, so every draw matters."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
    )
    return Qwen2ForCausalLM(config).eval()


def sampler_of(model, batch_size: int) -> TransformersSampler:
    return TransformersSampler(
        model,
        encode=lambda text: [2 + ord(c) % (VOCABULARY - 2) for c in text],
        decode=lambda ids: " ".join(map(str, ids)),
        stop=frozenset([STOP]),
        pad=PAD,
        batch_size=batch_size,
    )


def request(
    n: int, *, temperature=1.0, top_p=1.0, seed=None, length=20
) -> SampleRequest:
    prompt = PROMPTS[n % len(PROMPTS)]
    seed = n if seed is None else seed
    return SampleRequest(f"i-{n}", n, prompt, length, temperature, top_p, seed)


def test_the_batch_size_does_not_change_the_answers(model):
    requests = [
        request(n, temperature=(0.0, 0.7, 1.0)[n % 3], top_p=(1.0, 0.9)[n % 2])
        for n in range(9)
    ]
    alone = {s.sample: s for s in sampler_of(model, 1).sample(requests)}
    together = {s.sample: s for s in sampler_of(model, 4).sample(requests)}
    assert alone == together
    assert len({s.text for s in alone.values()}) > 4


def test_the_seed_alone_decides_a_draw(model):
    same, again, other = [
        s.text
        for seed in (3, 3, 4)
        for s in sampler_of(model, 1).sample([request(0, seed=seed)])
    ]
    assert same == again
    assert same != other


def test_temperature_zero_is_the_models_own_greedy_answer(model):
    import torch

    (sample,) = sampler_of(model, 1).sample([request(0, temperature=0.0)])
    ids = [2 + ord("a") % (VOCABULARY - 2)]
    for token in sample.text.split():
        best = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        assert int(token) == best
        ids.append(best)


def test_answers_come_batch_by_batch_longest_prompt_first(model):
    answers = sampler_of(model, 2).sample([request(n) for n in range(4)])
    assert [next(answers).sample for _ in range(2)] == [3, 1]


def test_an_answer_ends_at_a_stop_token_or_at_its_own_length(model):
    requests = [request(n, temperature=3.0, length=5 + 40 * (n % 2)) for n in range(20)]
    samples = list(sampler_of(model, 20).sample(requests))
    assert {s.finish for s in samples} == {"stop", "length"}
    for sample in samples:
        tokens = sample.text.split()
        assert str(STOP) not in tokens
        stopped = sample.finish == "stop"
        assert sample.completion_tokens == len(tokens) + stopped
        assert stopped or len(tokens) == requests[sample.sample].max_new_tokens
        assert sample.prompt_tokens == len(requests[sample.sample].prompt)


def test_a_models_own_sampling_defaults_are_not_used(model):
    requests = [request(n, temperature=0.0) for n in range(4)]
    expected = list(sampler_of(model, 4).sample(requests))
    model.generation_config.repetition_penalty = 1.8
    model.generation_config.do_sample = True
    assert list(sampler_of(model, 4).sample(requests)) == expected


@pytest.mark.parametrize("top_p", [1.0, 0.75])
def test_the_draws_have_the_probabilities_of_the_softmax(top_p):
    import torch

    draws, temperature = 8000, 0.5
    logits = torch.tensor([1.0, 0.5, 0.0, -0.5])
    expected = (logits / temperature).softmax(-1)  # .60, .22, .08, ..
    if top_p < 1:
        expected[2:] = 0  # .60 + .22 reaches .75
        expected /= expected.sum()
    requests = [request(n, temperature=temperature, top_p=top_p) for n in range(draws)]
    choose = gumbel_sampler(requests, "cpu")
    picked = choose(torch.empty(0), logits.repeat(draws, 1)).argmax(-1)
    counts = torch.bincount(picked, minlength=4).double()
    likely = expected > 0
    chi2 = ((counts - draws * expected)[likely] ** 2 / (draws * expected[likely])).sum()
    assert counts[~likely].sum() == 0
    assert chi2 < 16.3  # 0.1 % with three degrees of freedom


def test_the_most_likely_token_is_always_in_the_nucleus():
    import torch

    requests = [request(n, top_p=1e-9) for n in range(50)]
    logits = torch.tensor([0.0, 0.1, 0.05]).repeat(50, 1)
    picked = gumbel_sampler(requests, "cpu")(torch.empty(0), logits).argmax(-1)
    assert Counter(picked.tolist()) == {1: 50}


def short_of_memory(model, most: int) -> list[int]:
    """Lets `generate` fail for more than `most` rows, and notes the sizes tried."""
    import torch

    generate, sizes = model.generate, []

    def limited(**kwargs):
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("too much")
        return generate(**kwargs)

    model.generate = limited
    return sizes


def test_a_full_gpu_halves_the_batch_and_goes_on(model):
    requests = [request(n) for n in range(7)]
    expected = {s.sample: s for s in sampler_of(model, 1).sample(requests)}
    sizes = short_of_memory(model, 2)
    found = {s.sample: s for s in sampler_of(model, 16).sample(requests)}
    assert found == expected
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]


def test_a_gpu_without_room_for_one_answer_is_an_error(model):
    short_of_memory(model, 0)
    with pytest.raises(StageError, match="25 tokens") as caught:
        list(sampler_of(model, 4).sample([request(n) for n in range(4)]))
    assert "[prompt] max_tokens" not in str(caught.value.hint)


@pytest.fixture
def cramped():
    """A random GPT-2, which cannot be asked beyond its 24 positions."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=24,
        bos_token_id=STOP,
        eos_token_id=STOP,
    )
    return GPT2LMHeadModel(config).eval()


def test_a_prompt_that_does_not_fit_the_model_is_named_and_the_others_go_on(cramped):
    requests = [request(n) for n in range(4)]
    samples = {s.sample: s for s in sampler_of(cramped, 4).sample(requests)}
    assert samples[3] == Sample("i-3", 3, "", prompt_tokens=25, finish="too long")
    assert {samples[n].finish for n in range(3)} <= {"stop", "length"}
    assert all(samples[n].text for n in range(3))


def test_an_answer_ends_at_the_models_last_position_in_batches_of_any_size(cramped):
    requests = [request(n, temperature=3.0) for n in range(12)]
    alone = {s.sample: s for s in sampler_of(cramped, 1).sample(requests)}
    together = {s.sample: s for s in sampler_of(cramped, 12).sample(requests)}
    assert alone == together
    cut = [s for s in alone.values() if s.finish == "length"]
    assert {s.prompt_tokens + s.completion_tokens for s in cut} == {21, 24}


def test_the_last_position_is_written_to(cramped):
    answers = []
    for length in (23, 24):
        (sample,) = sampler_of(cramped, 1).sample(
            [replace(request(0), prompt="a" * length)]
        )
        answers.append((sample.completion_tokens, sample.finish == "too long"))
    assert answers == [(1, False), (0, True)]


def test_a_model_that_does_not_tell_its_positions_is_asked_everything(model):
    del model.config.max_position_embeddings
    (sample,) = sampler_of(model, 1).sample([request(3)])
    assert sample.finish in {"stop", "length"}


def test_no_requests_no_answers(model):
    assert list(sampler_of(model, 4).sample([])) == []
