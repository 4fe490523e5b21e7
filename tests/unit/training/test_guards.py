from __future__ import annotations

import pytest

from swebench_trainer.errors import StageError
from swebench_trainer.training import guards


@pytest.fixture
def layer():
    import torch

    return torch.nn.Linear(4, 2)


def test_the_trainable_elements_are_counted(layer):
    layer.bias.requires_grad_(False)
    assert guards.require_trainable(layer) == 8


def test_a_frozen_model_is_an_error(layer):
    with pytest.raises(StageError, match="can be trained"):
        guards.require_trainable(layer.requires_grad_(False))


def test_the_share_of_moved_elements_is_reported(layer):
    before = guards.sample_weights(layer)
    layer.weight.data[0] += 1
    assert guards.require_moved(before, layer) == pytest.approx(4 / 10)


def test_weights_that_stay_are_an_error(layer):
    with pytest.raises(StageError, match="not changed a single weight"):
        guards.require_moved(guards.sample_weights(layer), layer)


def test_large_tensors_are_sampled():
    import torch

    layer = torch.nn.Linear(1024, 1024, bias=False)
    assert len(guards.sample_weights(layer)["weight"]) == 1 << 16


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_diverged_loss_is_an_error(loss):
    with pytest.raises(StageError, match="step 3"):
        guards.require_finite(3, loss)


def test_margins_that_stay_at_zero_are_an_error():
    rows = [{"rewards/margins": 0.0}] * 4
    with pytest.raises(StageError, match="exactly zero"):
        guards.require_margins(rows)
    guards.require_margins([*rows, {"rewards/margins": -0.1}])
    guards.require_margins(rows[:3])
    guards.require_margins([{"loss": 1.0}] * 9)
