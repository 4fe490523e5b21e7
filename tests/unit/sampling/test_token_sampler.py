from __future__ import annotations

import pytest

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.sampling.token_sampler import TokenSampler, uniforms


def request(**settings) -> SampleRequest:
    given = {"temperature": 1.0, "top_p": 1.0, "seed": 0} | settings
    return SampleRequest("i", 0, "prompt", 20, **given)


def evenly(count: int) -> list[float]:
    """Random numbers spread evenly over [0, 1)."""
    return [(number + 0.5) / count for number in range(count)]


def warped(logits, settings):
    """The probabilities that transformers samples from."""
    import torch
    from transformers import LogitsProcessorList
    from transformers.generation import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    warpers = LogitsProcessorList([TemperatureLogitsWarper(settings["temperature"])])
    if top_k := settings.get("top_k"):
        warpers.append(TopKLogitsWarper(top_k))
    if (top_p := settings.get("top_p", 1.0)) < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p := settings.get("min_p"):
        warpers.append(MinPLogitsWarper(min_p))
    return warpers(torch.empty(1, 0), logits[None])[0].softmax(-1)


@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 1.0, "top_p": 0.2},
        {"temperature": 1.0, "top_p": 1e-9},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_k": 7},
        {"temperature": 1.0, "top_k": 40},
        {"temperature": 1.0, "top_k": 9999},
        {"temperature": 1.0, "min_p": 0.3},
        {"temperature": 0.8, "top_k": 30, "top_p": 0.7, "min_p": 0.05},
    ],
    ids=str,
)
def test_probabilities_match_transformers(settings, spread):
    import torch

    draws, vocabulary = 1500, 1100
    torch.manual_seed(0)
    logits = torch.randn(vocabulary) * spread
    rows = TokenSampler([request(**settings)] * draws, "cpu")
    picked = rows(logits.repeat(draws, 1), evenly(draws))
    shares = torch.bincount(torch.tensor(picked), minlength=vocabulary) / draws
    expected = warped(logits, settings)
    # Even uniforms give each token its share up to one draw at both of its ends.
    assert (shares - expected).abs().max() < 2 / draws
    assert not shares[expected == 0].any()


def test_each_row_has_its_own_settings():
    import torch

    torch.manual_seed(0)
    settings = [
        {"temperature": 0.0},
        {"temperature": 2.0},
        {"top_k": 3},
        {"temperature": 0.0, "top_k": 3},
        {"top_p": 0.5},
        {"min_p": 0.2},
    ]
    requests = [request(**given) for given in settings]
    logits = torch.randn(len(requests), 2000)
    chance = uniforms(7, len(requests))
    together = TokenSampler(requests, "cpu")(logits, chance)
    alone = [
        TokenSampler([r], "cpu")(logits[n : n + 1], chance[n : n + 1])[0]
        for n, r in enumerate(requests)
    ]
    assert together == alone
    assert together[0] == logits[0].argmax() and together[3] == logits[3].argmax()
    assert len(set(together)) == len(requests)


@pytest.mark.parametrize("chance", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"top_k": 2}])
def test_excluded_tokens_are_never_drawn(chance, settings):
    import torch

    logits = torch.tensor([[-1e9, 1.0, 2.0, 0.5, -1e9]])
    (token,) = TokenSampler([request(**settings)], "cpu")(logits, [chance])
    assert token in (1, 2, 3)


def test_each_row_has_its_own_generator():
    assert uniforms(3, 40) == uniforms(3, 40) != uniforms(4, 40)
    assert uniforms(3, 40)[:7] == uniforms(3, 7), "longer answers begin alike"
    assert all(0 <= chance < 1 for chance in uniforms(3, 1000))
