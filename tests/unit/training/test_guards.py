from __future__ import annotations

import pytest

from swebench_trainer.errors import RecipeError, StageError
from swebench_trainer.training.loop import guards


@pytest.fixture
def layer():
    import torch

    return torch.nn.Linear(4, 2)


def test_the_trainable_elements_are_counted(layer):
    layer.bias.requires_grad_(False)
    assert guards.require_trainable(layer) == 8


def test_a_frozen_model_is_an_error(layer):
    with pytest.raises(StageError, match="no trainable weights"):
        guards.require_trainable(layer.requires_grad_(False))


def test_the_share_of_moved_elements_is_reported(layer):
    before = guards.sample_weights(layer)
    layer.weight.data[0] += 1
    assert guards.require_moved(before, layer, steps=3) == pytest.approx(4 / 10)


def test_unchanged_weights_are_an_error(layer):
    with pytest.raises(StageError, match="did not change any weight"):
        guards.require_moved(guards.sample_weights(layer), layer, steps=1)


def test_steps_that_round_away_are_an_error_that_names_the_precision(layer):
    import torch

    layer.to(torch.bfloat16)
    layer.weight.data.fill_(1.0)
    layer.bias.data.zero_()
    before = guards.sample_weights(layer)
    for _ in range(4):
        layer.weight.data -= (
            1e-3  # less than half of the distance between bf16 numbers there
        )
        layer.bias.data -= 1e-3
    with pytest.raises(StageError, match=r"Only 20\.0% .* in 4 steps: in bfloat16"):
        guards.require_moved(before, layer, steps=4)


def test_embeddings_do_not_count():
    import torch

    model = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 2))
    before = guards.sample_weights(model)
    model[1].weight.data += 1
    model[1].bias.data += 1
    assert guards.require_moved(before, model, steps=9) == 1.0


def test_adapters_of_embeddings_count_only_half():
    """Their first matrix has a column for each token."""
    import torch
    from peft import LoraConfig, get_peft_model

    layers = {"words": torch.nn.Embedding(9, 4), "out": torch.nn.Linear(4, 2)}
    model = get_peft_model(
        torch.nn.ModuleDict(layers), LoraConfig(r=2, target_modules=list(layers))
    )
    before = guards.sample_weights(model)
    assert any("lora_embedding_B" in name for name in before)
    assert not any("lora_embedding_A" in name for name in before)


def test_changes_that_are_lost_on_saving_are_an_error(layer):
    import torch

    layer.weight.data.fill_(1.0)
    layer.bias.data.fill_(1.0)
    before = guards.sample_weights(layer)
    layer.weight.data += 1e-4
    assert guards.require_saved(before, layer, torch.float32) == 0.8
    with pytest.raises(StageError, match=r"Only 0\.0% .* in bfloat16"):
        guards.require_saved(before, layer, torch.bfloat16)
    layer.bias.data += 1
    assert guards.require_saved(before, layer, torch.bfloat16) == 0.2


def test_large_tensors_are_sampled():
    import torch

    layer = torch.nn.Linear(1024, 1024, bias=False)
    assert len(guards.sample_weights(layer)["weight"]) == 1 << 16


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_training_is_an_error(value):
    with pytest.raises(StageError, match=r"loss is .* at step 3"):
        guards.require_finite(3, "loss", value)
    with pytest.raises(StageError, match=r"gradient norm is .* at step 3"):
        guards.require_finite(3, "gradient norm", value)
    guards.require_finite(3, "gradient norm", 1e9)


def test_a_row_longer_than_the_context_window_is_an_error():
    from transformers import LlamaConfig

    config = LlamaConfig(max_position_embeddings=4096)
    guards.require_window(config, 4096)
    with pytest.raises(RecipeError, match="4097 tokens") as caught:
        guards.require_window(config, 4097)
    assert "max_tokens = 4096" in caught.value.hint


def test_scaled_rotary_positions_extend_the_window():
    from transformers import LlamaConfig

    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 4096,
    }
    config = LlamaConfig(max_position_embeddings=4096, rope_parameters=rope)
    guards.require_window(config, 16384)
    with pytest.raises(RecipeError):
        guards.require_window(config, 16385)


def test_margins_that_stay_at_zero_are_an_error():
    rows = [{"rewards/margins": 0.0}] * 4
    with pytest.raises(StageError, match="exactly zero"):
        guards.require_margins(rows)
    with pytest.raises(StageError, match="exactly zero"):
        guards.require_margins([{"rewards/margins": float("nan")}] * 4)
    guards.require_margins([*rows, {"rewards/margins": -0.1}])
    guards.require_margins(rows[:3])
    guards.require_margins([{"loss": 1.0}] * 9)


def test_single_answers_are_checked_by_their_rewards():
    rows = [{"rewards/rejected": 0.0}] * 4
    with pytest.raises(StageError, match="exactly zero"):
        guards.require_margins(rows)
    guards.require_margins([*rows, {"rewards/rejected": -0.1}])
