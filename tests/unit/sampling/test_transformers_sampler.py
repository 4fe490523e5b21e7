from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.errors import StageError
from swebench_trainer.sampling.transformers import TransformersSampler

STOP, PAD, VOCABULARY = 1, 0, 32
PROMPTS = ("a", "a longer prompt", "mid one", "the longest prompt of all")


@pytest.fixture
def model():
    """A Qwen2 with random weights, so that every sampled token matters."""
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


def sampler_of(model, batch_size: int, **options) -> TransformersSampler:
    return TransformersSampler(
        model,
        encode=lambda text: [2 + ord(c) % (VOCABULARY - 2) for c in text],
        decode=lambda ids: " ".join(map(str, ids)),
        stop=frozenset([STOP]),
        pad=PAD,
        batch_size=batch_size,
        **options,
    )


def request(
    n: int, *, temperature=1.0, top_p=1.0, seed=None, length=20
) -> SampleRequest:
    prompt = PROMPTS[n % len(PROMPTS)]
    seed = n if seed is None else seed
    return SampleRequest(f"i-{n}", n, prompt, length, temperature, top_p, seed)


SETTINGS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"top_k": 5},
    {"min_p": 0.1, "temperature": 1.3},
    {"top_k": 20, "top_p": 0.8, "min_p": 0.01},
]


def mixed_requests() -> list[SampleRequest]:
    """Four prompts with five answers each, all with different settings."""
    requests = []
    for prompt in PROMPTS:
        for r in samples_of_one(prompt, 5):
            number = len(requests)
            settings = SETTINGS[number % len(SETTINGS)]
            requests.append(replace(r, seed=number, **settings))
    return requests


def answers(sampler: TransformersSampler, requests) -> dict[tuple[str, int], Sample]:
    return {(s.instance_id, s.sample): s for s in sampler.sample(requests)}


def test_answers_do_not_depend_on_the_batch(model):
    requests = mixed_requests()
    expected = answers(sampler_of(model, 1), requests)
    assert len(expected) == 20 and len({s.text for s in expected.values()}) > 14
    for batch_size in (3, 16, 64):
        assert answers(sampler_of(model, batch_size), requests) == expected
    assert answers(sampler_of(model, 16), requests[::-1]) == expected
    assert answers(sampler_of(model, 4), requests[1::3]).items() <= expected.items()


def test_a_resumed_run_gives_the_same_answers(model):
    requests = mixed_requests()
    expected = answers(sampler_of(model, 16), requests)
    begun = sampler_of(model, 16).sample(requests)
    found = {(s.instance_id, s.sample): s for s in islice(begun, 7)}
    owed = [r for r in requests if (r.instance_id, r.sample) not in found]
    assert found | answers(sampler_of(model, 16), owed) == expected


def test_an_interrupted_sampler_can_be_used_again(model):
    requests = mixed_requests()
    expected = answers(sampler_of(model, 16), requests)
    sampler = sampler_of(model, 16)
    next(sampler.sample(requests))
    assert answers(sampler, requests) == expected


def test_only_the_seed_decides_a_sample(model):
    same, again, other = [
        s.text
        for seed in (3, 3, 4)
        for s in sampler_of(model, 1).sample([request(0, seed=seed)])
    ]
    assert same == again
    assert same != other


def test_temperature_zero_equals_greedy_decoding(model):
    import torch

    (sample,) = sampler_of(model, 1).sample([request(0, temperature=0.0)])
    ids = [2 + ord("a") % (VOCABULARY - 2)]
    for token in sample.text.split():
        best = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        assert int(token) == best
        ids.append(best)


def test_longer_prompts_are_answered_first(model):
    answers = sampler_of(model, 1).sample([request(n) for n in range(4)])
    assert [answer.sample for answer in answers] == [3, 1, 2, 0]


class Spy:
    """Records the calls of a sampler's decoder; runs out of memory above a limit.

    Args:
        most: Rows for which there is memory.
    """

    def __init__(self, sampler: TransformersSampler, most: int = 10**6) -> None:
        self.read_prompts: list[int] = []
        self.read_rows: list[int] = []
        self.written_rows: list[int] = []
        self._decoder = sampler._decoder
        self._most = most
        self.joins = self._decoder.joins
        self.keep, self.clear = self._decoder.keep, self._decoder.clear
        sampler._decoder = self

    def read(self, prompts, answers):
        self.read_prompts.append(len(prompts))
        self._note(self.read_rows, sum(answers))
        return self._decoder.read(prompts, answers)

    def write(self, tokens):
        self._note(self.written_rows, len(tokens))
        return self._decoder.write(tokens)

    def _note(self, sizes: list[int], rows: int) -> None:
        import torch

        sizes.append(rows)
        if rows > self._most:
            raise torch.OutOfMemoryError("too much")


def samples_of_one(prompt: str, count: int, **options) -> list[SampleRequest]:
    return [
        replace(request(n, **options), instance_id=prompt, sample=n, prompt=prompt)
        for n in range(count)
    ]


def test_a_prompt_is_read_once_for_all_its_samples(model):
    requests = samples_of_one("one prompt", 8) + samples_of_one("another two", 8)
    sampler = sampler_of(model, 16)
    spy = Spy(sampler)
    assert len(list(sampler.sample(requests))) == 16
    assert (spy.read_prompts, spy.read_rows) == ([2], [16])


def test_a_finished_answer_is_yielded_immediately(model):
    requests = [request(1, length=3), *(request(n, length=40) for n in (0, 2))]
    sampler = sampler_of(endless(model), 3)
    spy = Spy(sampler)
    answers = sampler.sample(requests)
    assert next(answers).sample == 1
    assert len(spy.written_rows) == 2
    assert len(list(answers)) == 2
    written = sum(spy.written_rows)
    assert written == 2 + 39 + 39


def test_waiting_answers_replace_finished_ones(model):
    requests = [request(0, length=9 if n % 4 else 39, seed=n) for n in range(24)]
    requests = [replace(r, prompt=f"{n:02}") for n, r in enumerate(requests)]
    sampler = sampler_of(endless(model), 8)
    spy = Spy(sampler)
    assert len(list(sampler.sample(requests))) == 24
    assert sum(spy.written_rows) == 18 * 8 + 6 * 38  # the first tokens are not
    assert len(spy.written_rows) < 0.9 * 3 * 38
    assert max(spy.written_rows) == 8


def endless(model):
    """The model, changed so that it never generates the stop token."""
    import torch

    with torch.no_grad():
        model.lm_head.weight[STOP] = 0
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(VOCABULARY))
        model.lm_head.bias[STOP] = -1e9
    return model


def test_an_answer_that_is_cut_off_shows_that_the_prompt_opened_its_thought(model):
    requests = [request(n, temperature=3.0, length=5 + 40 * (n % 2)) for n in range(20)]
    sampler = sampler_of(model, 20, opened=lambda prompt: f"<think>{len(prompt)} ")
    for sample in sampler.sample(requests):
        opening = f"<think>{sample.prompt_tokens} "
        assert sample.text.startswith(opening) == (sample.finish == "length")


def test_an_answer_ends_at_a_stop_token_or_its_maximum_length(model):
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


def test_sampling_defaults_of_the_model_are_ignored(model):
    requests = [request(n, temperature=0.0) for n in range(4)]
    expected = list(sampler_of(model, 4).sample(requests))
    model.generation_config.repetition_penalty = 1.8
    model.generation_config.do_sample = True
    assert list(sampler_of(model, 4).sample(requests)) == expected


def test_running_out_of_memory_halves_the_batch(model):
    requests = samples_of_one("one prompt", 7)
    expected = list(sampler_of(model, 1).sample(requests))
    sampler = sampler_of(model, 16)
    spy = Spy(sampler, most=2)
    found = list(sampler.sample(requests))
    assert sorted(found, key=lambda s: s.sample) == expected
    assert spy.read_rows[:4] == [7, 3, 1, 1]
    assert max(spy.written_rows) == 1


def test_running_out_of_memory_mid_answer_restarts_the_batch(model):
    requests = [request(n) for n in range(9)]
    expected = {s.sample: s for s in sampler_of(model, 1).sample(requests)}
    sampler = sampler_of(model, 16)
    spy = Spy(sampler, most=4)
    spy.read = spy._decoder.read  # prompts alone fit
    samples = list(sampler.sample(requests))
    assert len(samples) == len(requests)
    assert {s.sample: s for s in samples} == expected
    assert max(spy.written_rows) > 4 >= spy.written_rows[-1]


def test_too_little_memory_for_one_answer_raises(model):
    sampler = sampler_of(model, 4)
    Spy(sampler, most=0)
    with pytest.raises(StageError, match="25 tokens") as caught:
        list(sampler.sample([request(n) for n in range(4)]))
    assert "[prompt] max_tokens" not in str(caught.value.hint)


def test_a_model_saved_during_training_can_be_sampled(model):
    (expected,) = sampler_of(model, 1).sample([request(1)])
    model.config.use_cache = False
    assert list(sampler_of(model, 1).sample([request(1)])) == [expected]


@pytest.fixture
def cramped():
    """A GPT-2 with random weights and 24 positions."""
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


def test_a_prompt_that_is_too_long_does_not_stop_the_others(cramped):
    requests = [request(n) for n in range(4)]
    samples = {s.sample: s for s in sampler_of(cramped, 4).sample(requests)}
    assert samples[3] == Sample("i-3", 3, "", prompt_tokens=25, finish="too long")
    assert {samples[n].finish for n in range(3)} <= {"stop", "length"}
    assert all(samples[n].completion_tokens for n in range(3))


def test_an_answer_ends_at_the_last_position_for_any_batch_size(cramped):
    requests = [request(n, temperature=3.0) for n in range(12)]
    alone = {s.sample: s for s in sampler_of(cramped, 1).sample(requests)}
    together = {s.sample: s for s in sampler_of(cramped, 12).sample(requests)}
    assert alone == together
    cut = [s for s in alone.values() if s.finish == "length"]
    assert {s.prompt_tokens + s.completion_tokens for s in cut} == {21, 24}


def test_the_last_position_is_used(cramped):
    answers = []
    for length in (23, 24):
        (sample,) = sampler_of(cramped, 1).sample(
            [replace(request(0), prompt="a" * length)]
        )
        answers.append((sample.completion_tokens, sample.finish == "too long"))
    assert answers == [(1, False), (0, True)]


def test_a_model_without_a_position_limit_accepts_every_prompt(model):
    del model.config.max_position_embeddings
    (sample,) = sampler_of(model, 1).sample([request(3)])
    assert sample.finish in {"stop", "length"}


def test_no_requests_give_no_answers(model):
    assert list(sampler_of(model, 4).sample([])) == []
