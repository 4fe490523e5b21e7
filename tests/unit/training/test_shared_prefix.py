"""Reading a prompt once gives the same numbers as reading it once per answer."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st
from small_models import PAD, open_model, write_model
from training_examples import DPO, FULL, LORA, PAIRS, metrics, request_in, stop_after

from swebench_trainer.training.batching.samplers import EpochSampler, by_prompt
from swebench_trainer.training.batching.shared_prefix import (
    FAMILIES,
    PADDING,
    SharedPrefixCollator,
    attention_mask,
    obstacle,
    pack,
    share_prefixes,
)
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.silence import silence_libraries

tokens = st.integers(1, 90)
prompts = st.lists(tokens, min_size=1, max_size=9)
answers = st.lists(tokens, min_size=1, max_size=6)
pairs = st.builds(
    lambda prompt, chosen, rejected: {
        "prompt_ids": prompt,
        "chosen_ids": chosen,
        "rejected_ids": rejected,
    },
    st.sampled_from([[7], [5, 6, 7], [5, 6, 8, 9]]),
    answers,
    answers,
)
BATCH = [
    {
        "prompt_ids": list(range(10, 40)),
        "chosen_ids": [3, 4, 5, 6, 1],
        "rejected_ids": [3, 4, 7, 1],
    },
    {
        "prompt_ids": list(range(10, 40)),
        "chosen_ids": [3, 4, 5, 6, 1],
        "rejected_ids": [1],
    },
    {
        "prompt_ids": list(range(50, 67)),
        "chosen_ids": [8, 1],
        "rejected_ids": [9, 9, 9, 9, 9, 9, 9, 1],
    },
]
"""Two pairs of one prompt with the same chosen answer, and a pair of another prompt."""


def masked(packed, implementation="sdpa", padding=0):
    import torch

    return attention_mask(
        torch.tensor([packed.segments + [PADDING] * padding]), implementation
    )


@given(prompts, st.lists(answers, min_size=1, max_size=4), st.integers(0, 3))
@settings(deadline=None)
def test_a_token_sees_the_earlier_tokens_of_its_prompt_and_answer(
    prompt, answers, padding
):
    row = pack(prompt, answers)
    mask = masked(row, padding=padding)[0, 0].tolist()
    texts = [prompt, *(prompt + answer for answer in answers)]
    for place, (segment, position) in enumerate(
        zip(row.segments, row.positions, strict=True)
    ):
        seen = [
            token
            for token, is_seen in zip(row.ids, mask[place], strict=False)
            if is_seen
        ]
        assert seen == texts[segment][: position + 1]
        assert not any(mask[place][len(row.ids) :])


@given(prompts, st.lists(answers, min_size=1, max_size=4), st.integers(1, 3))
@settings(deadline=None)
def test_padding_sees_a_token_and_no_text_sees_padding(prompt, answers, padding):
    mask = masked(pack(prompt, answers), padding=padding)[0, 0]
    assert mask.any(dim=-1).all()
    assert not mask[:-padding, -padding:].any()


@given(st.lists(pairs, min_size=1, max_size=5))
@settings(deadline=None)
def test_the_trainers_batch_has_the_answers_and_their_places(examples):
    batch = SharedPrefixCollator(PAD)(examples)
    read = batch["shared"]["input_ids"].flatten()
    sequences = [
        (example["prompt_ids"], example[side])
        for side in ("chosen_ids", "rejected_ids")
        for example in examples
    ]
    for number, (prompt, answer) in enumerate(sequences):
        ids = batch["input_ids"][number]
        learned = batch["completion_mask"][number].bool()
        assert ids[learned].tolist() == answer
        assert ids[: len(answer) + 1].tolist() == [prompt[-1], *answer]
        places = batch["shared"]["places"][number][: len(answer)]
        assert read[places].tolist() == [prompt[-1], *answer[:-1]]


@given(st.lists(pairs, min_size=1, max_size=5))
@settings(deadline=None)
def test_each_prompt_and_each_answer_to_it_is_read_once(examples):
    batch = SharedPrefixCollator(PAD)(examples)
    texts = {tuple(e["prompt_ids"]) for e in examples}
    different = {
        (tuple(e["prompt_ids"]), tuple(e[side]))
        for e in examples
        for side in ("chosen_ids", "rejected_ids")
    }
    expected = sum(len(p) - 1 for p in texts) + sum(len(a) for _, a in different)
    assert int(batch["attention_mask"].sum()) == expected
    assert len(batch["shared"]["input_ids"]) == len(texts)


def test_flex_attention_gets_the_same_mask():
    """Its kernels need a GPU; its uncompiled form equals SDPA with our mask."""
    import torch
    from torch.nn.attention.flex_attention import create_mask, flex_attention
    from torch.nn.functional import scaled_dot_product_attention

    segments = SharedPrefixCollator(PAD)(BATCH)["shared"]["segments"]
    dense = attention_mask(segments, "sdpa")
    blocks = attention_mask(segments, "flex_attention")
    rows, length = segments.shape
    assert torch.equal(
        create_mask(blocks.mask_mod, rows, 1, length, length, device="cpu"), dense
    )
    heads = torch.randn(3, rows, 2, length, 16, generator=torch.manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # not compiled here
        attended = flex_attention(*heads, block_mask=blocks)
    torch.testing.assert_close(
        attended, scaled_dot_product_attention(*heads, attn_mask=dense)
    )


def log_probabilities(model, batch):
    """Of each answer's tokens, chosen answers first."""
    mask = batch.pop("completion_mask")
    labels = batch["input_ids"].masked_fill(mask == 0, -100)
    output = model(**batch, labels=labels, fused_lm_head=True, use_cache=False)
    learned = mask[:, 1:].bool()
    return [row[kept] for row, kept in zip(output.log_probs, learned, strict=True)]


def measure(model, batch):
    """Log-probabilities of all answers in a row, and every gradient."""
    import torch

    rows = log_probabilities(model, batch)
    sums = torch.stack([row.sum() for row in rows])
    model.zero_grad()
    # Like DPO: the chosen half up, the rejected half down, by different weights.
    weights = torch.linspace(-0.2, 0.3, len(sums))
    (weights * sums).sum().backward()
    gradients = {
        name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad
    }
    return torch.cat(rows).detach(), gradients


CASES = [
    *((family, "lora", False) for family in FAMILIES),
    *(
        (family, kind, checkpointing)
        for family in ("qwen2", "llama")
        for kind in ("lora", "nf4", "full")
        for checkpointing in (False, True)
        if (kind, checkpointing) != ("lora", False)
    ),
]


@pytest.mark.parametrize(("family", "kind", "checkpointing"), CASES)
def test_log_probabilities_and_gradients_equal_those_of_plain_dpo(
    tmp_path, family, kind, checkpointing
):
    import torch
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    table = HfTable(
        name=write_model(family, tmp_path),
        quantization="nf4" if kind == "nf4" else "none",
        lora=False if kind == "full" else {"rank": 4, "alpha": 8},
    )
    model, base = open_model(table, checkpointing=checkpointing)
    expected, gradients = measure(model, DataCollatorForPreference(PAD)(BATCH))
    assert obstacle(base) is None
    share_prefixes(base)
    found, shared = measure(model, SharedPrefixCollator(PAD)(BATCH))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert all(gradient.any() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared[name], gradient, atol=1e-5, rtol=1e-5)
    again, _ = measure(model, DataCollatorForPreference(PAD)(BATCH))
    assert torch.equal(again, expected)  # other batches are unchanged


@pytest.mark.slow  # compiling for the CPU takes a minute; it has no backward
def test_a_model_with_flex_attention_gives_the_same_log_probabilities(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    name = write_model("qwen2", tmp_path)
    found = {}
    for attention in ("sdpa", "flex_attention"):
        model = AutoModelForCausalLM.from_pretrained(
            name, attn_implementation=attention
        ).eval()
        add_fused_lm_head(model)
        assert obstacle(model) is None
        share_prefixes(model)
        with torch.no_grad(), silence_libraries():  # notices of the compiler
            found[attention] = log_probabilities(
                model, SharedPrefixCollator(PAD)(BATCH)
            )
    torch.testing.assert_close(
        found["flex_attention"], found["sdpa"], atol=1e-5, rtol=0
    )


def test_an_unsupported_model_gives_the_reason():
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {
        "vocab_size": 32,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }

    def reason(family, attention="sdpa", **settings):
        config = AutoConfig.for_model(family, **small, **settings)
        return obstacle(
            AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        )

    assert reason("qwen2") is None
    assert "gemma" in reason("gemma")
    assert "eager" in reason("qwen2", attention="eager")
    assert "window" in reason("mistral", sliding_window=8)


def prompt_sampler(prompts, seed):
    return EpochSampler(len(prompts), seed, partial(by_prompt, prompts))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 9))
def test_pairs_of_a_prompt_are_consecutive(prompts, epoch):
    sampler = prompt_sampler(prompts, seed=0)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(sampler)))
    seen = [prompts[pair] for pair in order]
    changes = sum(one != other for one, other in pairwise(seen))
    assert changes == len(set(prompts)) - 1
    assert list(sampler) == order


def test_the_order_depends_on_the_epoch_and_the_seed():
    sampler = prompt_sampler(range(20), seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(prompt_sampler(range(20), seed=1)) != first


SHORT = DPO.model_copy(update={"epochs": 1, "micro_batch": 2})


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        (LORA, {"sft_weight": 0.5}),
        (LORA, {"loss": "ipo", "group_by_prompt": True}),
        (FULL, {"loss": "hinge"}),
        (FULL, {"loss": "robust", "label_smoothing": 0.1}),
    ],
)
def test_a_training_takes_the_steps_of_plain_dpo(tmp_path, table, changes):
    """For each loss, with adapters and with whole models."""
    rows = {}
    for shared in (False, True):
        out = tmp_path / str(shared)
        settings = SHORT.model_copy(update={**changes, "shared_prefix": shared})
        train_dpo(table, TWICE, settings, request_in(out))
        audit = json.loads((out / "audit.json").read_text())
        assert audit["shared_prefix"] is shared
        rows[shared] = metrics(out)
    assert len(rows[True]) == len(rows[False]) == 4
    for found, expected in zip(rows[True], rows[False], strict=True):
        for name in COMPARED & expected.keys():
            assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-4)
    assert rows[True][-1]["loss"] < rows[True][0]["loss"]


TWICE = PAIRS + tuple(
    replace(pair, rejected=pair.rejected.replace("-=", "*=")) for pair in PAIRS
)
"""Two pairs of each prompt, with the same chosen answer."""
COMPARED = {"loss", "grad_norm", "rewards/margins", "logps/chosen", "logps/rejected"}


def test_a_killed_training_continues_in_order_of_prompts(tmp_path, trained):
    settings = SHORT.model_copy(update={"epochs": 2, "group_by_prompt": True})
    straight = trained(train_dpo, LORA, TWICE, settings)
    settings = settings.model_copy(update={"save_every": 3})
    with pytest.raises(KeyboardInterrupt):
        train_dpo(LORA, TWICE, settings, request_in(tmp_path, step=stop_after(5)))
    train_dpo(LORA, TWICE, settings, request_in(tmp_path))
    assert metrics(tmp_path) == metrics(straight.parent)


def test_a_model_that_cannot_share_prompts_is_trained_plainly_with_the_reason(tmp_path):
    eager = LORA.model_copy(update={"attention": "eager"})
    train_dpo(eager, PAIRS, SHORT, request_in(tmp_path))
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["shared_prefix"] is False
    assert audit["prompts_read_twice"] == "eager is not one of sdpa, flex_attention"
