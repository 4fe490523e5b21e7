"""Training whole models: the reference is a frozen copy, and the steps equal TRL's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_examples import (
    DPO,
    FULL,
    PAIRS,
    ROWS,
    SFT,
    metrics,
    request_in,
    same_weights,
    stop_after,
    tensors,
)

from swebench_trainer.errors import StageError
from swebench_trainer.training import dpo
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop.training import Training, for_token_rows
from swebench_trainer.training.models import loading, tiny
from swebench_trainer.training.models.loading import load_tokenizer
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.encoding import encode_completion, encode_prompt

SETTINGS = DPO.model_copy(
    update={"learning_rate": 1e-4, "epochs": 2, "schedule": "constant"}
)


@pytest.fixture
def bfloat16(tmp_path) -> HfTable:
    """A base model with bf16 files, like those on the Hub."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "base"
    tiny.write_tiny(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None  # training must set it, but not save it
    base.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return FULL.model_copy(update={"name": str(folder)})


def test_the_first_margin_is_zero_and_the_reference_does_not_change(
    tmp_path, sft_model, monkeypatch
):
    import torch

    references = []

    def remember(*args, **options):
        policy, reference = loading.load_policy_and_reference(*args, **options)
        references.append(reference)
        return policy, reference

    monkeypatch.setattr(dpo, "load_policy_and_reference", remember)
    weights = train_dpo(FULL, PAIRS, SETTINGS, request_in(tmp_path, start=sft_model))
    assert weights == tmp_path / "model"
    first, *_, last = metrics(tmp_path)
    assert first["rewards/margins"] == 0.0
    assert first["rewards/chosen"] == 0.0
    assert last["rewards/margins"] > 0
    (reference,) = references
    kept = dict(reference.named_parameters())
    trained = tensors(weights)
    for name, tensor in tensors(sft_model).items():
        assert torch.equal(kept[name], tensor)
        assert not torch.equal(trained[name], tensor)
    assert not any(p.requires_grad for p in kept.values())


@pytest.mark.parametrize("shared", [True, False])
def test_the_steps_equal_those_of_trls_dpo(tmp_path, sft_model, shared):
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    settings = SETTINGS.model_copy(
        update={"shared_prefix": shared, "batch_size": 4, "warmup_ratio": 0}
    )
    ours = train_dpo(
        FULL, PAIRS, settings, request_in(tmp_path / "ours", start=sft_model)
    )
    tokenizer = load_tokenizer(FULL, sft_model)
    rows = [
        {
            "prompt_ids": encode_prompt(tokenizer, pair.prompt),
            "chosen_ids": encode_completion(tokenizer, pair.chosen),
            "rejected_ids": encode_completion(tokenizer, pair.rejected),
        }
        for pair in PAIRS
    ]
    with silence_libraries():
        plain = AutoModelForCausalLM.from_pretrained(sft_model, dtype=torch.float32)
        trainer = for_token_rows(DPOTrainer)(
            model=plain,
            args=DPOConfig(
                output_dir=str(tmp_path / "trl"),
                beta=settings.beta,
                learning_rate=settings.learning_rate,
                lr_scheduler_type="constant",
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=4,
                max_grad_norm=settings.max_grad_norm,
                save_strategy="no",
                logging_steps=1,
                seed=0,
                data_seed=0,
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                report_to="none",
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    for found, wanted in zip(metrics(tmp_path / "ours"), logged, strict=True):
        for name in ("loss", "rewards/margins"):
            assert found[name] == pytest.approx(wanted[name], abs=1e-5)
    expected = dict(plain.named_parameters())
    for name, tensor in tensors(ours).items():
        # Adam divides by the gradient's size, so where it is almost zero, an ulp of it
        # makes a step. Nearly all other elements are equal.
        differ = (tensor - expected[name]).abs() > 1e-6
        assert differ.float().mean() < 0.01, name


def test_a_killed_and_resumed_training_ends_with_the_same_bits(
    tmp_path, trained, sft_model
):
    straight = trained(train_dpo, FULL, PAIRS, SETTINGS, start=sft_model)
    settings = SETTINGS.model_copy(update={"save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        request = request_in(tmp_path, start=sft_model, step=stop_after(3))
        train_dpo(FULL, PAIRS, settings, request)
    resumed = train_dpo(FULL, PAIRS, settings, request_in(tmp_path, start=sft_model))
    assert same_weights(straight, resumed)
    assert metrics(tmp_path) == metrics(straight.parent)


def test_a_model_is_saved_in_its_declared_precision_with_an_unchanged_tokenizer(
    tmp_path, bfloat16
):
    import torch
    from transformers import AutoModelForCausalLM

    weights = train_sft(bfloat16, ROWS, SFT, request_in(tmp_path / "sft"))
    loaded = AutoModelForCausalLM.from_pretrained(weights)
    assert loaded.dtype == torch.bfloat16
    audit = json.loads((tmp_path / "sft" / "audit.json").read_text())
    assert audit["moved"] > 0.9
    assert 0.5 < audit["moved_as_saved"] < audit["moved"]
    base = Path(bfloat16.name)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (weights / name).read_bytes() == (base / name).read_bytes(), name
    assert json.loads((weights / "config.json").read_text())["vocab_size"] == 1024


def test_steps_that_the_saved_precision_cannot_hold_are_an_error(tmp_path, bfloat16):
    settings = SFT.model_copy(update={"learning_rate": 1e-8})
    with pytest.raises(StageError, match=r"Only .* from their start in bfloat16"):
        train_sft(bfloat16, ROWS, settings, request_in(tmp_path / "sft"))


def test_with_autocast_to_bf16_the_first_margin_is_zero_too(
    tmp_path, bfloat16, monkeypatch
):
    """Like on a GPU: both models have fp32 weights and compute in bf16."""
    plain = Training.arguments
    monkeypatch.setattr(
        Training, "arguments", lambda training: plain(training) | {"bf16": True}
    )
    monkeypatch.setattr(loading, "compute_dtype", lambda: __import__("torch").bfloat16)
    weights = train_dpo(bfloat16, PAIRS, SETTINGS, request_in(tmp_path / "dpo"))
    first, *_, last = metrics(tmp_path / "dpo")
    assert first["rewards/margins"] == 0.0
    assert first["rewards/chosen"] == 0.0
    assert last["rewards/margins"] != 0.0
    assert weights.name == "model"
