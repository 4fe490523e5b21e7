from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError
from training_examples import (
    DPO,
    FULL,
    LORA,
    PAIRS,
    QLORA,
    ROWS,
    SFT,
    metrics,
    request_in,
    stop_after,
    tensors,
)

from swebench_trainer.recipe.models import DpoTable, semantic_settings
from swebench_trainer.training.dpo import losses, train_dpo
from swebench_trainer.training.models.loading import load_trainable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries


def test_it_starts_at_the_sft_adapter_and_against_it(tmp_path, sft_adapter):
    import torch

    before = tensors(sft_adapter)
    weights = train_dpo(LORA, PAIRS, DPO, request_in(tmp_path, start=sft_adapter))
    first, *_, last = metrics(tmp_path)
    assert first["rewards/margins"] == 0.0
    assert first["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert last["rewards/margins"] > 0
    assert {path.name for path in weights.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "swebench_trainer.json",
    }
    after = tensors(weights)
    assert after.keys() == before.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(t, tensors(sft_adapter)[n]) for n, t in before.items())


def test_without_a_start_the_reference_is_the_base_model(tmp_path):
    train_dpo(LORA, PAIRS, DPO, request_in(tmp_path))
    first, *_, last = metrics(tmp_path)
    assert first["rewards/margins"] == 0.0
    assert last["rewards/margins"] > 0


def test_all_weights_have_a_frozen_copy_as_reference(tmp_path):
    start = train_sft(FULL, ROWS, SFT, request_in(tmp_path / "sft"))
    out = tmp_path / "dpo"
    settings = DPO.model_copy(update={"learning_rate": 1e-4})
    weights = train_dpo(FULL, PAIRS, settings, request_in(out, start=start))
    first, *_, last = metrics(out)
    assert weights == out / "model"
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert last["rewards/margins"] > 0


def test_the_sft_term_raises_the_chosen_answer(tmp_path, sft_adapter):
    chosen = []
    for weight in (0.0, 1.0):
        out = tmp_path / str(weight)
        settings = DPO.model_copy(update={"sft_weight": weight})
        train_dpo(LORA, PAIRS, settings, request_in(out, start=sft_adapter))
        chosen.append(metrics(out)[-1]["logps/chosen"])
    assert chosen[1] > chosen[0]


@pytest.mark.parametrize(
    ("changes", "beginning"),
    [
        ({"loss": "sigmoid"}, math.log(2)),
        ({"loss": "hinge"}, 1.0),
        ({"loss": "ipo", "beta": 0.5}, 1.0),  # (0 - 1 / (2 * beta)) squared
        ({"loss": "robust", "label_smoothing": 0.2}, math.log(2)),
    ],
)
def test_each_loss_begins_at_its_value_for_equals_and_falls(
    tmp_path, sft_adapter, changes, beginning
):
    settings = DPO.model_copy(update={**changes, "epochs": 2})
    train_dpo(LORA, PAIRS, settings, request_in(tmp_path, start=sft_adapter))
    first, *_, last = metrics(tmp_path)
    assert first["loss"] == pytest.approx(beginning, abs=1e-6)
    assert last["loss"] < first["loss"]
    assert last["rewards/margins"] > 0


def test_losses_are_what_is_asked_for():
    assert losses(DPO) == {
        "loss_type": ["sigmoid"],
        "loss_weights": [1.0],
        "label_smoothing": 0.0,
    }
    both = losses(DPO.model_copy(update={"loss": "ipo", "sft_weight": 0.25}))
    assert both["loss_type"] == ["ipo", "sft"]
    assert both["loss_weights"] == [1.0, 0.25]


@pytest.mark.parametrize("keys", [{"loss": "robust"}, {"label_smoothing": 0.1}])
def test_label_smoothing_and_the_robust_loss_need_each_other(keys):
    with pytest.raises(ValidationError, match="go together"):
        DpoTable(**keys)


def test_a_killed_and_resumed_training_ends_with_the_same_bits(tmp_path, sft_adapter):
    import torch

    settings = DPO.model_copy(update={"save_every": 3})
    runs = {}
    for name, step in (("straight", None), ("killed", stop_after(5))):
        request = request_in(tmp_path / name, start=sft_adapter, step=step)
        if step:
            with pytest.raises(KeyboardInterrupt):
                train_dpo(LORA, PAIRS, settings, request)
            request = request_in(tmp_path / name, start=sft_adapter)
        runs[name] = tensors(train_dpo(LORA, PAIRS, settings, request))
    assert all(torch.equal(t, runs["killed"][n]) for n, t in runs["straight"].items())
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "straight")


@pytest.mark.parametrize("shared", [True, False])
def test_a_pair_counts_the_same_in_whatever_part_it_is(tmp_path, sft_adapter, shared):
    """Seven pairs in steps of four: each pass ends with a step of three."""
    ends = []
    for micro in (1, 2, 4):
        out = tmp_path / str(micro)
        changes = {"batch_size": 4, "micro_batch": micro, "shared_prefix": shared}
        settings = DPO.model_copy(update={**changes, "epochs": 2})
        pairs = (PAIRS * 4)[:7]
        train_dpo(LORA, pairs, settings, request_in(out, start=sft_adapter))
        ends.append([row["loss"] for row in metrics(out)])
    assert ends[1] == pytest.approx(ends[0], abs=1e-5)
    assert ends[2] == pytest.approx(ends[0], abs=1e-5)


def test_with_an_sft_term_the_parts_of_a_step_decide_the_result():
    for changed in ({"micro_batch": 2}, {"micro_tokens": 100}, {"processes": 2}):
        for weight, counts in ((0.0, False), (1.0, True)):
            one = DpoTable(batch_size=8, sft_weight=weight)
            other = DpoTable(batch_size=8, sft_weight=weight, **changed)
            assert (semantic_settings(one) != semantic_settings(other)) is counts


def test_a_finished_training_is_not_done_again(tmp_path, sft_adapter):
    steps = []
    request = request_in(
        tmp_path, start=sft_adapter, step=lambda done, *_: steps.append(done)
    )
    weights = train_dpo(LORA, PAIRS, DPO, request)
    taken = len(steps)
    assert train_dpo(LORA, PAIRS, DPO, request) == weights
    assert len(steps) == taken > 0


def test_four_bit_adapters_move_at_dpo_rates_from_exactly_where_sft_ended(tmp_path):
    """TRL keeps them in bf16, where steps this small round away."""
    start = train_sft(QLORA, ROWS, SFT, request_in(tmp_path / "sft"))
    out = tmp_path / "dpo"
    settings = DPO.model_copy(update={"learning_rate": 1e-6, "warmup_ratio": 0})
    weights = train_dpo(QLORA, PAIRS, settings, request_in(out, start=start))
    audit = json.loads((out / "audit.json").read_text())
    assert metrics(out)[0]["rewards/margins"] == 0.0
    assert audit["moved"] > 0.9
    change = max(
        float((tensors(weights)[name] - tensor).abs().max())
        for name, tensor in tensors(start).items()
    )
    assert change < 1e-5  # eight steps of 1e-6; rounding to bf16 would be a larger one


def test_a_four_bit_forward_in_eval_mode_leaves_training_possible():
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
