"""Muon and AdamW: which weights each trains, and that both act as one optimizer."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from training_examples import (
    DPO,
    FULL,
    LORA,
    PAIRS,
    ROWS,
    SFT,
    metrics,
    request_in,
    same_weights,
    stop_after,
)
from transformers import Qwen2Config, Qwen2ForCausalLM

from swebench_trainer.errors import RecipeError
from swebench_trainer.training.distributed import launch
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop.muon import MuonAndAdamW, muon_for
from swebench_trainer.training.sft import train_sft

RATE, DECAY = 1e-2, 0.1
MUON = SFT.model_copy(update={"optimizer": "muon"})
"""Six steps."""
TOLERANCE = 1e-4
"""For losses: gradients are summed in another order, and torch's Muon rounds to bf16."""


def network(*, tied: bool) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=tied,
        )
    )


def with_gradients(model: torch.nn.Module, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=chance)


@pytest.mark.parametrize("tied", [True, False])
def test_each_weight_has_one_optimizer_and_embeddings_have_adamw(tied):
    model = network(tied=tied)
    names = {id(p): name for name, p in model.named_parameters()}
    muon, decayed, plain = (
        {names[id(p)] for p in group["params"]}
        for group in muon_for(model, RATE, DECAY).param_groups
    )
    layer = "model.layers.0."
    assert muon == {
        f"{layer}self_attn.{part}_proj.weight" for part in ("q", "k", "v", "o")
    } | {f"{layer}mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
    assert decayed == {"model.embed_tokens.weight"} | (
        set() if tied else {"lm_head.weight"}
    )
    assert len(muon) + len(decayed) + len(plain) == len(names)
    assert all(name.endswith((".bias", "norm.weight")) for name in plain)


def test_a_step_equals_steps_of_torchs_optimizers_with_the_same_schedule():
    model, twin = network(tied=True), network(tied=True)
    ours = muon_for(model, RATE, DECAY)
    matrices, embeddings, plain = (
        group["params"] for group in muon_for(twin, RATE, DECAY).param_groups
    )
    muon = torch.optim.Muon(
        matrices, lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(
        [
            {"params": embeddings, "weight_decay": DECAY},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=RATE,
    )
    scheduler = partial(
        torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda n: 1 / (n + 1)
    )
    schedules = [scheduler(optimizer) for optimizer in (ours, muon, adamw)]
    for n in range(3):
        for each in (model, twin):
            with_gradients(each, n)
        for optimizer in (ours, muon, adamw):
            optimizer.step()
        for schedule in schedules:
            schedule.step()
    expected = dict(twin.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())


def test_a_loaded_state_continues_like_the_saved_one():
    model = network(tied=True)
    optimizer = muon_for(model, RATE, DECAY)
    with_gradients(model, 0)
    optimizer.step()
    twin = copy.deepcopy(model)
    loaded = muon_for(twin, 1.0, 0.0)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in (model, twin):
        with_gradients(each, 1)
    optimizer.step()
    loaded.step()
    expected = dict(model.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in twin.named_parameters())


def test_a_closure_is_called_once_and_returns_the_loss():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    bias = torch.nn.Parameter(torch.ones(2))
    optimizer = MuonAndAdamW([weight], [{"params": [bias]}], RATE, 0.0)
    losses = []

    def closure() -> torch.Tensor:
        losses.append((weight.sum() + bias.sum()) ** 2)
        losses[-1].backward()
        return losses[-1]

    assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1
    assert weight.sum() < 4
    assert bias.sum() < 2


@pytest.fixture
def muon_model(trained):
    """A model trained by Muon."""
    return trained(train_sft, FULL, ROWS, MUON)


def test_a_stopped_training_ends_like_an_undisturbed_one(tmp_path, muon_model):
    settings = MUON.model_copy(update={"save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train_sft(FULL, ROWS, settings, request_in(tmp_path, step=stop_after(3)))
    resumed = train_sft(FULL, ROWS, settings, request_in(tmp_path))
    assert metrics(tmp_path) == metrics(muon_model.parent)
    assert same_weights(resumed, muon_model)


def test_dpo_can_use_muon(tmp_path, muon_model):
    changes = {"optimizer": "muon", "learning_rate": 1e-3, "epochs": 2}
    settings = DPO.model_copy(update=changes)
    train_dpo(FULL, PAIRS, settings, request_in(tmp_path, start=muon_model))
    margins = [row["rewards/margins"] for row in metrics(tmp_path)]
    assert margins[0] == 0.0
    assert margins[-1] > 0


@pytest.mark.slow
def test_training_in_two_processes_equals_training_in_one(tmp_path, muon_model):
    two = MUON.model_copy(update={"processes": 2})
    launch.train(train_sft, FULL, ROWS, two, request_in(tmp_path))
    found, expected = metrics(tmp_path), metrics(muon_model.parent)
    assert [row["loss"] for row in found] == pytest.approx(
        [row["loss"] for row in expected], abs=TOLERANCE
    )


def test_training_with_muon_differs_from_training_with_adamw(muon_model, sft_model):
    muon, adamw = (metrics(model.parent) for model in (muon_model, sft_model))
    assert muon[0]["loss"] == adamw[0]["loss"]
    assert muon[-1]["loss"] != adamw[-1]["loss"]


def test_adapters_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(RecipeError, match="lora") as error:
        launch.train(train_sft, LORA, ROWS, MUON, request_in(tmp_path))
    assert 'optimizer = "adamw"' in (error.value.hint or "")
