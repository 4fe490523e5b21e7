from __future__ import annotations

import json
import math
import shutil

import pytest
from pydantic import ValidationError
from training_examples import (
    DPO,
    LORA,
    PAIRS,
    QLORA,
    metrics,
    request_in,
    same_weights,
    stop_after,
    tensors,
)

from swebench_trainer.recipe.models import DpoTable, semantic_settings
from swebench_trainer.training.dpo import losses, train_dpo
from swebench_trainer.training.models.loading import load_trainable
from swebench_trainer.training.silence import silence_libraries


def test_policy_and_reference_start_from_the_sft_adapter(sft_adapter, dpo_adapter):
    import torch

    first, *_, last = metrics(dpo_adapter.parent)
    assert first["rewards/margins"] == 0.0
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert last["loss"] < first["loss"]
    assert last["rewards/margins"] > 0
    assert {path.name for path in dpo_adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "swebench_trainer.json",
    }
    before, after = tensors(sft_adapter), tensors(dpo_adapter)
    assert after.keys() == before.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_a_training_leaves_the_adapter_that_it_starts_from_unchanged(
    tmp_path, sft_adapter
):
    start = shutil.copytree(sft_adapter, tmp_path / "start")
    settings = DPO.model_copy(update={"epochs": 1})
    train_dpo(LORA, PAIRS, settings, request_in(tmp_path / "dpo", start=start))
    assert same_weights(start, sft_adapter)


def test_without_a_start_the_reference_is_the_base_model(trained):
    settings = DPO.model_copy(update={"epochs": 2})
    first, *_, last = metrics(trained(train_dpo, LORA, PAIRS, settings).parent)
    assert first["rewards/margins"] == 0.0
    assert last["rewards/margins"] > 0


def test_the_sft_term_raises_the_chosen_answer(tmp_path, sft_adapter, dpo_adapter):
    settings = DPO.model_copy(update={"sft_weight": 1.0})
    train_dpo(LORA, PAIRS, settings, request_in(tmp_path, start=sft_adapter))
    with_term, without = metrics(tmp_path)[-1], metrics(dpo_adapter.parent)[-1]
    assert with_term["logps/chosen"] > without["logps/chosen"]


@pytest.mark.parametrize(
    ("changes", "beginning"),
    [
        ({"loss": "hinge"}, 1.0),
        ({"loss": "ipo", "beta": 0.5}, 1.0),  # (0 - 1 / (2 * beta)) squared
        ({"loss": "robust", "label_smoothing": 0.2}, math.log(2)),
    ],
)
def test_each_loss_starts_at_its_value_for_equal_models_and_falls(
    tmp_path, sft_adapter, changes, beginning
):
    settings = DPO.model_copy(update={**changes, "epochs": 2})
    train_dpo(LORA, PAIRS, settings, request_in(tmp_path, start=sft_adapter))
    first, *_, last = metrics(tmp_path)
    assert first["loss"] == pytest.approx(beginning, abs=1e-6)
    assert last["loss"] < first["loss"]
    assert last["rewards/margins"] > 0


def test_an_sft_weight_adds_a_second_loss():
    assert losses(DPO) == {
        "loss_type": ["sigmoid"],
        "loss_weights": [1.0],
        "label_smoothing": 0.0,
    }
    both = losses(DPO.model_copy(update={"loss": "ipo", "sft_weight": 0.25}))
    assert both["loss_type"] == ["ipo", "sft"]
    assert both["loss_weights"] == [1.0, 0.25]


@pytest.mark.parametrize("keys", [{"loss": "robust"}, {"label_smoothing": 0.1}])
def test_label_smoothing_and_the_robust_loss_go_together(keys):
    with pytest.raises(ValidationError, match="go together"):
        DpoTable(**keys)


def test_a_killed_and_resumed_training_ends_with_the_same_bits(
    tmp_path, sft_adapter, dpo_adapter
):
    settings = DPO.model_copy(update={"save_every": 3})
    with pytest.raises(KeyboardInterrupt):
        request = request_in(tmp_path, start=sft_adapter, step=stop_after(5))
        train_dpo(LORA, PAIRS, settings, request)
    resumed = train_dpo(LORA, PAIRS, settings, request_in(tmp_path, start=sft_adapter))
    assert same_weights(resumed, dpo_adapter)
    assert metrics(tmp_path) == metrics(dpo_adapter.parent)


@pytest.mark.parametrize(
    ("shared", "sizes"), [(True, (1, 2, 4)), (False, (1, 2))], ids=["shared", "plain"]
)
def test_a_pair_counts_the_same_in_micro_batches_of_any_size(
    tmp_path, sft_adapter, shared, sizes
):
    """Seven pairs in steps of four: an epoch ends with a step of three."""
    ends = []
    for micro in sizes:
        out = tmp_path / str(micro)
        changes = {"batch_size": 4, "micro_batch": micro, "shared_prefix": shared}
        settings = DPO.model_copy(update={**changes, "epochs": 1})
        pairs = (PAIRS * 4)[:7]
        train_dpo(LORA, pairs, settings, request_in(out, start=sft_adapter))
        ends.append([row["loss"] for row in metrics(out)])
    for end in ends[1:]:
        assert end == pytest.approx(ends[0], abs=1e-5)


def test_with_an_sft_term_the_parts_of_a_step_are_in_fingerprints():
    for changed in ({"micro_batch": 2}, {"micro_tokens": 100}, {"processes": 2}):
        for weight, counts in ((0.0, False), (1.0, True)):
            one = DpoTable(batch_size=8, sft_weight=weight)
            other = DpoTable(batch_size=8, sft_weight=weight, **changed)
            assert (semantic_settings(one) != semantic_settings(other)) is counts


def test_a_finished_training_is_not_repeated(tmp_path, sft_adapter, dpo_adapter):
    out = shutil.copytree(dpo_adapter.parent, tmp_path / "dpo")
    request = request_in(out, start=sft_adapter, step=stop_after(1))
    assert train_dpo(LORA, PAIRS, DPO, request) == out / "adapter"


def test_four_bit_adapters_continue_exactly_from_sft_and_move_at_dpo_rates(
    tmp_path, qlora_adapter
):
    """TRL casts them to bf16, where steps this small round away."""
    settings = DPO.model_copy(update={"learning_rate": 1e-6, "warmup_ratio": 0})
    request = request_in(tmp_path, start=qlora_adapter)
    weights = train_dpo(QLORA, PAIRS, settings, request)
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert metrics(tmp_path)[0]["rewards/margins"] == 0.0
    assert audit["moved"] > 0.9
    change = max(
        float((tensors(weights)[name] - tensor).abs().max())
        for name, tensor in tensors(qlora_adapter).items()
    )
    assert change < 1e-5  # eight steps of 1e-6; rounding to bf16 would change more


def test_a_four_bit_model_can_be_trained_after_a_forward_in_eval_mode():
    """On CPUs with AVX512-BF16 bitsandbytes would swap in weights without a backward."""
    import torch

    with silence_libraries():
        model = load_trainable(QLORA, None, seed=0)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
    model(input_ids=ids, labels=ids).loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(grad is not None for grad in grads.values())
    assert any(
        grad.any()
        for name, grad in grads.items()
        if "layers.0.self_attn.q_proj.lora_B" in name
    )
    with torch.no_grad():
        torch.testing.assert_close(model.train()(input_ids=ids).logits, expected)
