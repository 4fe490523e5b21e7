"""Muon beside AdamW: which weights are whose, and that two optimizers act as one."""

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
    stop_after,
    tensors,
)
from transformers import Qwen2Config, Qwen2ForCausalLM

from swebench_trainer.errors import RecipeError
from swebench_trainer.training.distributed import launch
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop.muon import MuonAndAdamW, muon_for
from swebench_trainer.training.sft import train_sft

RATE, DECAY = 1e-2, 0.1
MUON = SFT.model_copy(update={"optimizer": "muon", "save_every": 2})
"""Six steps, with checkpoints after 2, 4 and 6."""
TOLERANCE = 1e-4
"""Of losses: gradients are summed in another order, and torch's Muon rounds to bf16."""


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
def test_each_weight_has_one_optimizer_and_the_ends_stay_with_adamw(tied):
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


def test_a_step_is_one_of_torch_s_own_optimizers_at_the_rate_of_the_schedule():
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
    mine, theirs = scheduler(ours), [scheduler(muon), scheduler(adamw)]
    for n in range(3):
        for each in (model, twin):
            with_gradients(each, n)
        for optimizer in (ours, muon, adamw):
            optimizer.step()
        for schedule in (mine, *theirs):
            schedule.step()
    expected = dict(twin.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())


def test_a_loaded_state_goes_on_where_it_was_saved():
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


def test_a_closure_is_called_once_and_gives_the_loss():
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


def test_a_stopped_training_ends_as_an_undisturbed_one(tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train_sft(FULL, ROWS, MUON, request_in(whole))
    with pytest.raises(KeyboardInterrupt):
        train_sft(FULL, ROWS, MUON, request_in(parted, step=stop_after(3)))
    train_sft(FULL, ROWS, MUON, request_in(parted))
    assert metrics(parted) == metrics(whole)
    expected = tensors(whole / "model")
    found = tensors(parted / "model")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_dpo_takes_it_too(tmp_path):
    start = train_sft(FULL, ROWS, MUON, request_in(tmp_path / "sft"))
    settings = DPO.model_copy(update={"optimizer": "muon", "learning_rate": 1e-3})
    train_dpo(FULL, PAIRS, settings, request_in(tmp_path / "dpo", start=start))
    margins = [row["rewards/margins"] for row in metrics(tmp_path / "dpo")]
    assert margins[0] == 0.0
    assert margins[-1] > 0


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    train_sft(FULL, ROWS, MUON, request_in(tmp_path / "one"))
    two = MUON.model_copy(update={"processes": 2})
    launch.train(train_sft, FULL, ROWS, two, request_in(tmp_path / "two"))
    for mine, theirs in zip(
        metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True
    ):
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=TOLERANCE)


def test_it_is_not_the_training_of_adamw(tmp_path):
    train_sft(FULL, ROWS, MUON, request_in(tmp_path / "muon"))
    adamw = MUON.model_copy(update={"optimizer": "adamw"})
    train_sft(FULL, ROWS, adamw, request_in(tmp_path / "adamw"))
    mine, theirs = (metrics(tmp_path / name) for name in ("muon", "adamw"))
    assert mine[0]["loss"] == theirs[0]["loss"]
    assert mine[-1]["loss"] != theirs[-1]["loss"]


def test_adapters_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(RecipeError, match="lora") as error:
        launch.train(train_sft, LORA, ROWS, MUON, request_in(tmp_path))
    assert 'optimizer = "adamw"' in (error.value.hint or "")
